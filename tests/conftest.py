"""What all tests share: one thread, no network, the folder of real data where it exists."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared real data; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the shared data folder is not here")
    return DATA
