"""Sorting more records than memory holds: sorted runs on disk, merged.

A record is a row of 64-bit numbers; rows are ordered by the first number, then the second, and so on. The result
depends on the records alone, not on how they come in blocks or how much memory there is.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.uint64]
STRETCH = 1 << 20
"""Bytes read at a time of each of the files that are merged; as many files are merged at a time as memory has room."""
_SHARE = 4
"""Sorting a block takes so many times its bytes: the records, their order, a copy in that order, and what is read."""
_RUN = 1 << 24
"""Bytes of a run at most, however much memory there is: larger ones leave the processor's caches and sort slower."""
_FEWEST, _MOST = 4, 1024
_SHORT = 16
_LEAST = 64
"""Fewest records that are held of a run, whatever the memory."""


def sorted_blocks(blocks: Iterable[Records], scratch: Path, memory: int) -> Iterator[Records]:
    """Blocks (records, width) -> the same records in order, in blocks; about `memory` bytes are held at a time.

    What memory does not hold is written below `scratch` and gone when the iterator ends.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="sort-") as folder:
        runs: list[Path | Records] = []
        for records in _filled(blocks, min(memory // _SHARE, _RUN)):
            if runs and isinstance(runs[0], np.ndarray):
                runs[0] = _write(Path(folder), 0, [runs[0]])
            run = _sorted(records)
            runs.append(_write(Path(folder), len(runs), [run]) if runs else run)
        written = len(runs)
        if written and isinstance(runs[0], np.ndarray):
            yield runs[0]
            return
        paths = [run for run in runs if isinstance(run, Path)]
        width = min(max(memory // STRETCH, _FEWEST), _MOST)
        while len(paths) > width:
            merged = _write(Path(folder), written, _merged(paths[:width], memory))
            written += 1
            for path in paths[:width]:
                path.unlink()
            paths = [*paths[width:], merged]
        yield from _merged(paths, memory)


def _filled(blocks: Iterable[Records], size: int) -> Iterator[Records]:
    """The same records in blocks of about `size` bytes."""
    held: list[Records] = []
    count = 0
    for block in blocks:
        most = max(size // (8 * block.shape[1]), _LEAST)
        for start in range(0, len(block), most):
            piece = block[start : start + most]
            if held and count + len(piece) > most:
                yield np.concatenate(held)
                held, count = [], 0
            held.append(piece)
            count += len(piece)
    if held:
        yield np.concatenate(held)


def _sorted(records: Records) -> Records:
    """Sort by the first number, which is quick; then what is equal in it by all: few in place, the rest at once."""
    out = np.empty_like(records)
    long = np.zeros(len(records), np.bool_)
    _arrange(records, np.argsort(np.ascontiguousarray(records[:, 0])), out, long)
    if long.any():
        among = out[long]
        out[long] = among[np.lexsort(among.T[::-1])]
    return out


def _write(folder: Path, number: int, blocks: Iterable[Records]) -> Path:
    """A run as a file whose name says how many numbers a record has."""
    path = folder / f"{number}"
    width = 0
    with path.open("wb") as file:
        for block in blocks:
            width = block.shape[1]
            file.write(np.ascontiguousarray(block).data)
    return path.rename(folder / f"{number}.{width}")


def _merged(paths: list[Path], memory: int) -> Iterator[Records]:
    """The records of sorted files in order. Of each file a stretch is held, and half as much again is given out."""
    if not paths:
        return
    width = int(paths[0].suffix[1:])
    stretch = max(min(memory // (2 * (len(paths) + 1)), STRETCH) // (8 * width), _LEAST)
    held = np.empty((len(paths), stretch, width), np.uint64)
    place, filled = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64)
    offset = np.zeros(len(paths), np.int64)
    out = np.empty((stretch * max(len(paths) // 2, 1), width), np.uint64)
    empty = np.arange(len(paths))
    while True:
        for run in empty.tolist():
            records = np.fromfile(paths[run], np.uint64, stretch * width, offset=int(offset[run])).reshape(-1, width)
            held[run, : len(records)] = records
            offset[run] += records.nbytes
            place[run], filled[run] = 0, len(records)
        ended = np.array([filled[run] == 0 for run in range(len(paths))])
        count = _merge(held, place, filled, ended, out)
        if not count:
            return
        yield out[:count].copy()
        empty = np.flatnonzero((place == filled) & ~ended)


@numba.njit(nogil=True, cache=True)
def _less(one, other) -> bool:  # type: ignore[no-untyped-def]
    for column in range(len(one)):
        if one[column] != other[column]:
            return one[column] < other[column]
    return False


@numba.njit(nogil=True, cache=True)
def _arrange(records, order, out, long) -> None:  # type: ignore[no-untyped-def]
    """Copies records in an order that sorts their first numbers, and sorts short runs of equal ones by insertion; marks
    what stands in longer runs."""
    row = np.empty(records.shape[1], np.uint64)
    begin = 0
    for i in range(len(order)):
        for column in range(records.shape[1]):
            row[column] = records[order[i], column]
        if i and out[i - 1, 0] != row[0]:
            begin = i
        at = i
        if i - begin < _SHORT:
            while at > begin and _less(row, out[at - 1]):
                out[at] = out[at - 1]
                at -= 1
        else:
            long[begin if i - begin == _SHORT else i : i + 1] = True
        out[at] = row


@numba.njit(nogil=True, cache=True, inline="always")
def _before(held, place, one, other) -> bool:  # type: ignore[no-untyped-def]
    for column in range(held.shape[2]):
        a, b = held[one, place[one], column], held[other, place[other], column]
        if a != b:
            return a < b
    return one < other


@numba.njit(nogil=True, cache=True)
def _sift(heap, size, at, held, place) -> None:  # type: ignore[no-untyped-def]
    while True:
        least = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < size and _before(held, place, heap[child], heap[least]):
                least = child
        if least == at:
            return
        heap[at], heap[least] = heap[least], heap[at]
        at = least


@numba.njit(nogil=True, cache=True)
def _merge(held, place, filled, ended, out) -> int:  # type: ignore[no-untyped-def]
    """Merge into `out` until it is full or a file's stretch is used up; returns how many records were written."""
    heap = np.empty(len(place), np.int64)
    size = 0
    for run in range(len(place)):
        if not ended[run]:
            heap[size] = run
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift(heap, size, at, held, place)
    count = 0
    while size and count < len(out):
        run = heap[0]
        out[count] = held[run, place[run]]
        count += 1
        place[run] += 1
        if place[run] == filled[run]:
            return count
        _sift(heap, size, 0, held, place)
    return count
