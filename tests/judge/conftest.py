"""Property tests without a time limit: a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("glassbox", deadline=None)
settings.load_profile("glassbox")
