"""Batches made one step ahead, in a thread, while the device works on the last one.

For stages whose batches do not depend on the model: pretraining, fine-tuning, preferences. A batch stays a pure
function of its step, so the sequence is the same, and stopping loses nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from glassbox.train.rows import Rows, to_rows


def ahead(batch_at: Callable[[int], Any], first: int, last: int, device: str = "cpu") -> Iterator[Rows]:
    """The rows of steps `first` to `last` - 1, in order.

    On a GPU the next step's rows are made, and pinned so that they are copied without the processor waiting, while
    this one's are in use: one step ahead, never more. On a CPU each is made in its turn: the step needs the core
    itself, and a thread gains nothing. What `batch_at(step)` raises is raised at that step. Close the iterator
    (`contextlib.closing`) to leave early: it waits for the batch being made, and its thread is gone.
    """
    if device == "cpu":
        yield from (to_rows(batch_at(step)) for step in range(first, last))
        return
    yield from in_thread(lambda step: pinned(to_rows(batch_at(step))), first, last)


def in_thread(make: Callable[[int], Rows], first: int, last: int) -> Iterator[Rows]:
    """`make(step)` for each step from `first` to `last` - 1, each called in a thread while the one before is in use."""
    if first >= last:
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(make, first)
        for step in range(first, last):
            rows = coming.result()
            if step + 1 < last:
                coming = thread.submit(make, step + 1)
            yield rows


def pinned(rows: Rows) -> Rows:
    """The rows in memory that a GPU can copy from by itself."""
    return {name: value.pin_memory() for name, value in rows.items()}
