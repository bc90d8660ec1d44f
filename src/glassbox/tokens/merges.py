"""Byte-pair merging of one piece (Sennrich et al. 2016): always the pair of lowest rank, of equals the leftmost.

A pair's rank stands in an open-addressing table, that of a pair of bytes in a plain 256 x 256 one. Short pieces are
merged in place, O(n^2) with tiny constants; long ones by a linked list and a heap, O(n log n).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

NO_RANK = np.int32(2**31 - 1)
EMPTY = np.uint64(2**64 - 1)
MOST_ENTRIES = 1 << 21
"""Entries that a vocabulary may have, so that two ids and a rank fit into 64 bits."""
SHORT = 192
"""Bytes up to which a piece is merged in place."""


class MergeTables(NamedTuple):
    """A vocabulary's merges as arrays."""

    byte_ids: NDArray[np.int32]
    """(256,) the id of each byte."""
    byte_ranks: NDArray[np.int32]
    """(65536,) rank of the pair of two bytes; NO_RANK: not merged."""
    pairs: NDArray[np.uint64]
    """(slots,) left id << 43 | right id << 22 | rank, or EMPTY: one word, so that a look-up is one access to memory;
    slots is a power of two."""
    made: NDArray[np.int32]
    """(merges,) the id that each merge makes."""


def merge_tables(byte_ids: NDArray[np.int32], merges: Mapping[tuple[int, int], tuple[int, int]]) -> MergeTables:
    """byte_ids (256,), and (left id, right id) -> (rank, new id)."""
    count = 1 + max((rank for rank, _ in merges.values()), default=0)
    made = np.zeros(count, np.int32)
    for rank, new in merges.values():
        made[rank] = new
    entries = np.array([left << 43 | right << 22 | rank for (left, right), (rank, _) in merges.items()], np.uint64)
    pairs = np.full(1 << max(4, (2 * len(merges)).bit_length()), EMPTY, np.uint64)
    _fill(entries, pairs)
    bytes_of = {int(i): byte for byte, i in enumerate(byte_ids)}
    byte_ranks = np.full(65536, NO_RANK, np.int32)
    for (left, right), (rank, _) in merges.items():
        if left in bytes_of and right in bytes_of:
            byte_ranks[bytes_of[left] << 8 | bytes_of[right]] = rank
    return MergeTables(byte_ids, byte_ranks, pairs, made)


@numba.njit(nogil=True, cache=True)
def merge_piece(data, start, end, byte_ids, byte_ranks, pairs, made, out, at, ranks) -> int:  # type: ignore[no-untyped-def]
    """Ids of the bytes data[start:end] into `out` (room for them all) from `at` on; returns how many.

    The tables are those of `MergeTables`; `ranks` (SHORT,) int32 is scratch space.
    """
    size = end - start
    if size > SHORT:
        return _merge_long(data, start, end, byte_ids, byte_ranks, pairs, made, out[at : at + size])
    for i in range(size):
        out[at + i] = byte_ids[data[start + i]]
    for i in range(size - 1):
        ranks[i] = byte_ranks[np.int64(data[start + i]) << 8 | np.int64(data[start + i + 1])]
    while size > 1:
        best, place = NO_RANK, -1
        for i in range(size - 1):
            if ranks[i] < best:
                best, place = ranks[i], i
        if place < 0:
            break
        out[at + place] = made[best]
        for i in range(place + 1, size - 1):
            out[at + i] = out[at + i + 1]
        for i in range(place, size - 2):
            ranks[i] = ranks[i + 1]
        size -= 1
        if place > 0:
            ranks[place - 1] = _rank(pairs, out[at + place - 1], out[at + place])
        if place < size - 1:
            ranks[place] = _rank(pairs, out[at + place], out[at + place + 1])
    return size


@numba.njit(nogil=True, cache=True)
def _merge_long(data, start, end, byte_ids, byte_ranks, pairs, made, out) -> int:  # type: ignore[no-untyped-def]
    """As `merge_piece`. The heap holds rank << 32 | place; an entry whose pair has changed since is passed over."""
    size = end - start
    ranks = np.full(size, NO_RANK, np.int32)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, count = np.empty(2 * size, np.int64), 0
    for i in range(size):
        out[i] = byte_ids[data[start + i]]
        before[i], after[i] = i - 1, i + 1
    for i in range(size - 1):
        ranks[i] = byte_ranks[np.int64(data[start + i]) << 8 | np.int64(data[start + i + 1])]
        if ranks[i] != NO_RANK:
            count = _push(heap, count, np.int64(ranks[i]) << 32 | i)
    while count:
        top = heap[0]
        count = _pop(heap, count)
        place, rank = top & 0xFFFFFFFF, top >> 32
        if ranks[place] != rank:
            continue
        gone = after[place]
        out[place] = made[rank]
        ranks[gone] = NO_RANK
        after[place] = after[gone]
        if after[gone] < size:
            before[after[gone]] = place
        for left in (np.int64(before[place]), place):
            if left < 0:
                continue
            right = after[left]
            ranks[left] = _rank(pairs, out[left], out[right]) if right < size else NO_RANK
            if ranks[left] != NO_RANK:
                count = _push(heap, count, np.int64(ranks[left]) << 32 | left)
    kept, i = 0, 0
    while i < size:
        out[kept] = out[i]
        kept += 1
        i = after[i]
    return kept


@numba.njit(nogil=True, cache=True)
def _rank(pairs, left, right) -> np.int32:  # type: ignore[no-untyped-def]
    pair = np.uint64(left) << np.uint64(21) | np.uint64(right)
    slot = _pair_slot(pair, len(pairs))
    while pairs[slot] != EMPTY:
        if pairs[slot] >> np.uint64(22) == pair:
            return np.int32(pairs[slot] & np.uint64(0x3FFFFF))
        slot = (slot + 1) & (len(pairs) - 1)
    return NO_RANK


@numba.njit(nogil=True, cache=True)
def _pair_slot(pair, slots) -> int:  # type: ignore[no-untyped-def]
    """Where to begin to look for a pair (Fibonacci hashing of both halves)."""
    value = (pair ^ (pair >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(value >> np.uint64(32)) & (slots - 1)


@numba.njit(nogil=True, cache=True)
def _fill(entries, pairs) -> None:  # type: ignore[no-untyped-def]
    for entry in entries:
        slot = _pair_slot(entry >> np.uint64(22), len(pairs))
        while pairs[slot] != EMPTY:
            slot = (slot + 1) & (len(pairs) - 1)
        pairs[slot] = entry


@numba.njit(nogil=True, cache=True)
def _push(heap, count, value) -> int:  # type: ignore[no-untyped-def]
    i = count
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent] <= value:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = value
    return count + 1


@numba.njit(nogil=True, cache=True)
def _pop(heap, count) -> int:  # type: ignore[no-untyped-def]
    count -= 1
    value, i = heap[count], 0
    while True:
        child = 2 * i + 1
        if child >= count:
            break
        if child + 1 < count and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value
    return count
