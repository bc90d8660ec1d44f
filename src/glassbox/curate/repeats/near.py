"""Near duplicates: signatures cut into bands, documents that agree in a band linked, groups of linked documents judged.

Documents that agree in all rows of one band of b bands of r rows meet: with probability 1 - (1 - J^r)^b at Jaccard
similarity J (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4). All is reckoned in places of the order of
priority, so that how documents are numbered decides nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import mix
from glassbox.curate.repeats.minhash import EMPTY
from glassbox.curate.repeats.sorting import Records, sorted_blocks
from glassbox.curate.repeats.survivors import agreement, keep_first, keep_unlike, slots_needed
from glassbox.curate.repeats.texts import Texts
from glassbox.recipe.duplicates import NearDuplicates

LEADERS = 16
"""Documents of a bucket, unlike each other, that the others of the bucket are held against; their number bounds the
work on a bucket of any size."""
_BLOCK = 1 << 22
"""Bytes of signatures and records that are held while the table is read."""


def near_copies(
    table: NDArray[np.uint32],
    order: NDArray[np.int64],
    settings: NearDuplicates,
    texts: Texts,
    scratch: Path,
    memory: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each document the kept document it repeats (its own number if it is kept), and their similarity.

    `table` (documents, permutations) may be memory-mapped; `order` are the documents to compare in order of priority.
    Bands are grouped by a sort within `memory` bytes; beyond that some 60 bytes a document are held. Pairs that meet
    and pass the check are joined by union-find. With check none one document of a group stays. Else, inside a group,
    each document is held against those kept so far, so that no chain of neighbours drops one unlike all that stay.
    """
    # A document without a single word has nothing to compare.
    order = order[np.asarray(table[:, 0])[order] != EMPTY]
    least = 0 if settings.check == "none" else slots_needed(settings)[0]
    parent = np.arange(len(order))
    leaders, state = np.zeros(LEADERS if least else 1, np.int64), np.zeros(2, np.uint64)
    for block in sorted_blocks(_band_records(table, order, settings), scratch, memory):
        _link(block, table, order, least, parent, leaders, state)
    members, bounds = _groups(parent, order)
    kept, similarity = np.arange(len(table)), np.zeros(len(table), np.float32)
    if settings.check == "none":
        keep_first(table, members, bounds, kept, similarity)
    else:
        keep_unlike(table, members, bounds, settings, texts, (scratch, memory), (kept, similarity))
    return kept, similarity


def _band_records(table: NDArray[np.uint32], order: NDArray[np.int64], settings: NearDuplicates) -> Iterator[Records]:
    """(hash of band and its values, place in order) of every band of every document, in the order of the table."""
    place = np.full(len(table), -1, np.int64)
    place[order] = np.arange(len(order))
    height = max(_BLOCK // (4 * table.shape[1] + 16 * settings.bands), 1)
    for start in range(0, len(table), height):
        places = place[start : start + height]
        alive = places >= 0
        rows = np.asarray(table[start : start + height])[alive]
        out = np.empty((len(rows), settings.bands, 2), np.uint64)
        _band_keys(rows, settings.rows, out)
        out[:, :, 1] = places[alive, None]
        yield out.reshape(-1, 2)


def _groups(parent: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents of all groups of two and more, group by group in order of priority, and the groups' bounds."""
    root = _roots(parent)
    places = np.flatnonzero(np.bincount(root, minlength=len(root))[root] > 1)
    places = places[np.argsort(root[places], kind="stable")]
    begins = np.flatnonzero(np.diff(root[places], prepend=-1))
    return order[places], np.append(begins, len(places))


@numba.njit(nogil=True, cache=True)
def _band_keys(rows, height, out) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(out)):
        for band in range(out.shape[1]):
            value = np.uint64(band)
            for k in range(band * height, (band + 1) * height):
                value = mix(value ^ np.uint64(rows[d, k])) + np.uint64(0x9E3779B97F4A7C15)
            out[d, band, 0] = value


@numba.njit(nogil=True, cache=True)
def _root(parent, i) -> int:  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(nogil=True, cache=True)
def _link(records, table, order, least, parent, leaders, state) -> None:  # type: ignore[no-untyped-def]
    """Joins each document of a bucket with those leaders of the bucket that it agrees with in `least` slots; one that
    agrees with none is a leader itself. `state` carries the bucket's key and number of leaders to the next block."""
    for i in range(len(records)):
        place = np.int64(records[i, 1])
        if state[1] == 0 or records[i, 0] != state[0]:
            state[0], state[1], leaders[0] = records[i, 0], 1, place
            continue
        joined = False
        for k in range(state[1]):
            one, other = _root(parent, leaders[k]), _root(parent, place)
            if one == other:
                joined = True
            elif least == 0 or agreement(table, order[leaders[k]], order[place]) >= least:
                parent[max(one, other)] = min(one, other)
                joined = True
        if not joined and state[1] < len(leaders):
            leaders[np.int64(state[1])] = place
            state[1] += np.uint64(1)


@numba.njit(nogil=True, cache=True)
def _roots(parent):  # type: ignore[no-untyped-def]
    out = np.empty_like(parent)
    for i in range(len(parent)):
        out[i] = _root(parent, i)
    return out
