"""Batches made one step ahead, in a thread, while the device works on the last one.

For stages whose batches do not depend on the model: pretraining, fine-tuning, preferences. A batch stays a pure
function of its step, so the sequence is the same, and stopping loses nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from glassbox.train.rows import Rows

RowsAt = Callable[[int], Rows]
"""Step -> its rows."""


@contextmanager
def ahead(make: RowsAt, last: int, device: str) -> Iterator[RowsAt]:
    """`make`, for steps below `last`, such that on a GPU the next step's rows are made while this one's are in use.

    They are pinned, so that the GPU copies them without the processor waiting. On a CPU `make` itself is given: the
    step needs the core, and a thread gains nothing.
    """
    if device == "cpu":
        yield make
    else:
        with in_thread(lambda step: pinned(make(step)), last) as rows_at:
            yield rows_at


@contextmanager
def in_thread(make: RowsAt, last: int) -> Iterator[RowsAt]:
    """`make` such that asking for a step below `last` begins the next one in a thread: one step ahead, never more.

    Steps may be asked for in any order; one that was not expected is made when it is asked for, in the same thread.
    What `make(step)` raises is raised when that step is asked for. The end waits for what is being made, and then the
    thread is gone.
    """
    coming: dict[int, Future[Rows]] = {}

    def rows_at(step: int) -> Rows:
        rows = (coming.pop(step, None) or thread.submit(make, step)).result()
        coming.clear()
        if step + 1 < last:
            coming[step + 1] = thread.submit(make, step + 1)
        return rows

    with ThreadPoolExecutor(1, "batches") as thread:
        yield rows_at


def pinned(rows: Rows) -> Rows:
    """The rows in memory that a GPU can copy from by itself."""
    return {name: value.pin_memory() for name, value in rows.items()}
