"""A run over several processes: starting them, and what they say to one another beside the training itself.

In: a command to start, or what torchrun (or `host.py`) put into this process's environment. Out: an exit code, or a
`Crew`.
`host.py` starts a command as several processes on this host, and again when one is lost · `crew.py` this process among
them: process 0 carries the recipe out and tells the others which stages to do with it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassbox.processes.crew import Crew


@contextmanager
def taking_part() -> Iterator["Crew | None"]:
    """This process's place among those that were started together; None, and no PyTorch, for one on its own."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield None
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the same news in one sentence is ours
    from glassbox.processes.crew import joined

    with joined() as crew:
        yield crew
