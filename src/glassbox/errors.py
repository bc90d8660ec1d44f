"""The errors a user can meet. Each carries its exit code and reads as one sentence: where, what, what to do."""


class GlassboxError(Exception):
    """Failed at work (exit code 1)."""

    exit_code = 1


class RequestError(GlassboxError):
    """The request was wrong: a bad recipe, a missing input, an unreadable file (exit code 2)."""

    exit_code = 2


class IntegrityError(GlassboxError):
    """An artefact does not match its recorded hash (exit code 3)."""

    exit_code = 3


class Interrupted(GlassboxError):
    """Stopped on request after a clean checkpoint (exit code 130)."""

    exit_code = 130


class Lost(GlassboxError):
    """A process of a run over several was lost, or failed in a way that may pass: whoever started them may start them
    again. Where nobody does, the run failed at work."""

    exit_code = 70
