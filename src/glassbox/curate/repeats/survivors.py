"""Which documents of a group of linked ones stay: all that are unlike every one that stays before them."""

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.repeats.minhash import shingle_sets
from glassbox.curate.repeats.texts import Texts, batched
from glassbox.recipe.duplicates import NearDuplicates

MOST_HELD = 4096
"""Kept documents of one group that a document is held against: bounds the work on a group that is one long chain."""
_SET_BYTES = 16_384
"""Bytes a document's shingles are expected to take (2,000 shingles)."""


def slots_needed(settings: NearDuplicates) -> tuple[int, int]:
    """Slots in which two signatures must agree: fewer than the first is unlike, as many as the second is alike.

    With an exact check they are two standard deviations of the estimate below and above the threshold; else equal.
    """
    size, threshold = settings.permutations, settings.threshold
    doubt = 2 * np.sqrt(threshold * (1 - threshold) / size) if settings.check == "exact" else 0.0
    low, high = (int(np.ceil(size * value - 1e-9)) for value in (threshold - doubt, threshold + doubt))
    return max(low, 1), high


def keep_unlike(
    table: NDArray[np.uint32],
    members: NDArray[np.int64],
    bounds: NDArray[np.int64],
    settings: NearDuplicates,
    texts: Texts,
    disk: tuple[Path, int],
    out: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> None:
    """Judge groups, `members[bounds[g]:bounds[g + 1]]` in order of priority; `out` gets what each document repeats, and
    their similarity.

    For an exact check, shingles of the documents in doubt are held in a file of the folder `disk[0]`, of about
    `disk[1]` bytes at a time; no other document is read.
    """
    low, high = slots_needed(settings)
    doubtful = np.zeros(len(members), bool)
    if low < high:
        _find_doubt(table, members, bounds, low, high, doubtful)
    for first, last in _batches(doubtful, bounds, max(disk[1] // _SET_BYTES, 1)):
        here = slice(int(bounds[first]), int(bounds[last]))
        path = disk[0] / "shingles"
        sets, places = _sets(members[here], doubtful[here], settings, texts, path)
        _keep(
            table,
            members[here],
            bounds[first : last + 1] - bounds[first],
            (low, high, settings.threshold),
            (sets, places),
            *out,
        )
        path.unlink(missing_ok=True)


def _batches(doubtful: NDArray[np.bool_], bounds: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Stretches of groups with about `most` documents in doubt each."""
    before = np.append(0, np.cumsum(doubtful))[bounds]
    first = 0
    while first < len(bounds) - 1:
        last = int(np.searchsorted(before, before[first] + most, "right")) - 1
        last = min(max(last, first + 1), len(bounds) - 1)
        yield first, last
        first = last


def _sets(
    members: NDArray[np.int64],
    doubtful: NDArray[np.bool_],
    settings: NearDuplicates,
    texts: Texts,
    path: Path,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Shingle sets of the members in doubt, in a file, and where each member's begins and ends in it (equal: none)."""
    places = np.zeros((len(members), 2), np.int64)
    wanted = np.flatnonzero(doubtful)
    wanted = wanted[np.argsort(members[wanted])]
    if not len(wanted):
        return np.zeros(0, np.uint64), places
    row = written = 0
    with path.open("wb") as file:
        for _, batch in batched(texts, members[wanted]):
            for shingles in shingle_sets(batch, settings):
                file.write(shingles.data)
                places[wanted[row]] = written, written + len(shingles)
                row, written = row + 1, written + len(shingles)
    return np.memmap(path, np.uint64, "r"), places


@numba.njit(nogil=True, cache=True)
def agreement(table, one, other) -> int:  # type: ignore[no-untyped-def]
    """In how many slots two rows agree."""
    count = 0
    for k in range(table.shape[1]):
        count += table[one, k] == table[other, k]
    return count


@numba.njit(nogil=True, cache=True)
def keep_first(table, members, bounds, kept, similarity) -> None:  # type: ignore[no-untyped-def]
    """The first document of each group stays, whatever the others are like."""
    for g in range(len(bounds) - 1):
        head = members[bounds[g]]
        for m in range(bounds[g] + 1, bounds[g + 1]):
            kept[members[m]] = head
            similarity[members[m]] = agreement(table, head, members[m]) / table.shape[1]


@numba.njit(nogil=True, cache=True)
def _find_doubt(table, members, bounds, low, high, doubtful) -> None:  # type: ignore[no-untyped-def]
    """Marks the documents whose shingles may be needed: two, neither surely gone, in doubt of each other."""
    held = np.empty(MOST_HELD, np.int64)
    surely = np.empty(MOST_HELD, np.bool_)
    agree = np.empty(MOST_HELD, np.int64)
    for g in range(len(bounds) - 1):
        count = 0
        for m in range(bounds[g], bounds[g + 1]):
            gone, open_ = False, False
            for h in range(count):
                agree[h] = agreement(table, members[held[h]], members[m])
                gone |= surely[h] and agree[h] >= high
                open_ |= agree[h] >= low
            if gone:
                continue
            for h in range(count):
                if low <= agree[h] < high:
                    doubtful[m] = doubtful[held[h]] = True
            if count < MOST_HELD:
                held[count], surely[count] = m, not open_
                count += 1


@numba.njit(nogil=True, cache=True)
def _jaccard(sets, one, other) -> float:  # type: ignore[no-untyped-def]
    """Of two sorted stretches of `sets`; 0 if one is empty."""
    i, j, both = one[0], other[0], 0
    while i < one[1] and j < other[1]:
        a, b = sets[i], sets[j]
        both += a == b
        i += a <= b
        j += b <= a
    union = one[1] - one[0] + other[1] - other[0] - both
    return both / union if both else 0.0


@numba.njit(nogil=True, cache=True)
def _keep(table, members, bounds, limits, shingles, kept, similarity) -> None:  # type: ignore[no-untyped-def]
    """In order of priority: a document goes if it is like one that stays, else it stays."""
    low, high, threshold = limits
    sets, places = shingles
    stays = np.empty(MOST_HELD, np.int64)
    agree = np.empty(MOST_HELD, np.int64)
    for g in range(len(bounds) - 1):
        count = 0
        for m in range(bounds[g], bounds[g + 1]):
            best, most = -1, 0.0
            for s in range(count):
                agree[s] = agreement(table, members[stays[s]], members[m])
                if agree[s] >= high and agree[s] / table.shape[1] > most:
                    best, most = stays[s], agree[s] / table.shape[1]
            if best < 0:
                for s in range(count):
                    if low <= agree[s] < high:
                        exact = _jaccard(sets, places[stays[s]], places[m])
                        if exact >= threshold - 1e-9 and exact > most:
                            best, most = stays[s], exact
            if best >= 0:
                kept[members[m]], similarity[members[m]] = members[best], most
            elif count < MOST_HELD:
                stays[count] = m
                count += 1
