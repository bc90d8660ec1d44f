"""The encoder's kernels: added tokens, then pieces, through a cache of pieces met before."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.tokens.layout import PLAIN
from glassbox.tokens.merges import SHORT, MergeTables, merge_piece
from glassbox.tokens.piece_keys import INLINE, hash_bytes, key_slot, piece_key
from glassbox.tokens.pieces import next_piece

SLOTS = 1 << 18
"""Slots of the cache, 24 bytes each; when it is 5/8 full it starts anew."""
LONGEST_CACHED = 127
"""Bytes; a longer piece hardly ever comes again."""


class Tables(NamedTuple):
    """What never changes."""

    classes: NDArray[np.uint8]
    signed: bool
    digits: int
    merges: MergeTables
    raw: tuple[NDArray[np.int32], NDArray[np.int32]]
    """Nodes and leaves of the added tokens that are looked for first."""
    normal: tuple[NDArray[np.int32], NDArray[np.int32]]
    whole: tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
    """Whole tokens: hash table of numbers + 1, their bytes one after the other, and (start, end, id) of each."""


class Cache(NamedTuple):
    """What grows: pieces and their ids."""

    slots: NDArray[np.uint64]
    """(SLOTS, 3): first 8 bytes or hash, other bytes or place in `text` with the length above bit 56; start and count
    of the ids, or the id."""
    known: NDArray[np.int32]
    text: NDArray[np.uint8]
    fill: NDArray[np.int64]
    """Entries, ids and bytes in use."""


@numba.njit(nogil=True, cache=True)
def encode_documents(data, offsets, tables, cache, out, bounds) -> int:  # type: ignore[no-untyped-def]
    """Ids of all documents into `out`, which has room for one a byte; returns how many.

    The tuples are taken apart here, once: wherever a tuple is passed, numba counts references to each of its arrays.
    """
    classes, signed, digits, merges, raw, normal, whole = tables
    byte_ids, byte_ranks, pairs, made = merges
    (raw_nodes, raw_leaves), (nodes, leaves) = raw, normal
    whole_slots, whole_text, whole_entries = whole
    slots, known, text, fill = cache
    count, ranks = 0, np.empty(SHORT, np.int32)
    for d in range(len(bounds) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            # up to the next added token of the first kind, and therein up to the next one of the second
            first, last, token = _find(data, i, end, raw_nodes, raw_leaves)
            while i < first:
                stop, after, inner_token = _find(data, i, first, nodes, leaves)
                while i < stop:
                    i, last_byte, count, slot = _known_pieces(
                        data, i, stop, classes, signed, digits, byte_ids, slots, known, text, out, count
                    )
                    if i == stop:
                        break
                    number = 0
                    if len(whole_slots):
                        number = _whole_token(data, i, last_byte, whole_slots, whole_text, whole_entries, out, count)
                    if not number:
                        number = merge_piece(data, i, last_byte, byte_ids, byte_ranks, pairs, made, out, count, ranks)
                    if slot >= 0:
                        _remember(data, i, last_byte - i, slot, slots, known, text, fill, out, count, number)
                    i = last_byte
                    count += number
                if stop < first:
                    out[count] = inner_token
                    count += 1
                i = after
            if first < end:
                out[count] = token
                count += 1
            i = last
        bounds[d + 1] = count
    return count


@numba.njit(nogil=True, cache=True)
def _find(data, i, end, nodes, leaves):  # type: ignore[no-untyped-def]
    """Start, end and id of the next added token, the longest of those that begin first; (end, end, -1) without one."""
    if not len(nodes):
        return end, end, -1
    while i < end:
        node, j, last, token = nodes[0, data[i]], i + 1, i, -1
        while node:
            if leaves[node] != -1:
                last, token = j, leaves[node]
            if j == end:
                break
            node = nodes[node, data[j]]
            j += 1
        if token >= 0:
            return i, last, token
        i = last if token == PLAIN else i + 1
    return end, end, -1


@numba.njit(nogil=True, cache=True)
def _known_pieces(data, i, end, classes, signed, digits, byte_ids, slots, known, text, out, count):  # type: ignore[no-untyped-def]
    """Appends the ids of pieces that stand in the cache to `out` at `count`.

    Returns start and end of the first piece that is not known (end, end: none), the new count, and the empty slot of
    the piece (-1: too long to keep).
    """
    while i < end:
        stop = next_piece(data, i, end, classes, signed, digits)
        size = stop - i
        if size == 1:
            out[count] = byte_ids[data[i]]
            count += 1
        elif size > LONGEST_CACHED:
            return i, stop, count, -1
        else:
            slot = _short_slot(data, i, size, slots) if size <= INLINE else _long_slot(data, i, size, slots, text)
            value = slots[slot, 2]
            number = np.int64(value & np.uint64(0xFF))
            if number == 0:
                return i, stop, count, slot
            if number == 1:
                out[count] = value >> np.uint64(8)
            else:
                start = np.int64(value >> np.uint64(8))
                for k in range(number):
                    out[count + k] = known[start + k]
            count += number
        i = stop
    return i, end, count, -1


@numba.njit(nogil=True, cache=True, inline="always")
def _short_slot(data, i, size, slots) -> int:  # type: ignore[no-untyped-def]
    """The slot of a piece of at most INLINE bytes, or the empty one where it would stand."""
    low, high = piece_key(data, i, size)
    slot = key_slot(low, high, len(slots))
    while slots[slot, 1] != 0 and (slots[slot, 0] != low or slots[slot, 1] != high):
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(nogil=True, cache=True)
def _long_slot(data, i, size, slots, text) -> int:  # type: ignore[no-untyped-def]
    """The same for a longer piece: here the key is a hash, and the bytes stand in `text`."""
    low, high = piece_key(data, i, size)
    slot = key_slot(low, high, len(slots))
    while slots[slot, 1] != 0:
        stored = slots[slot, 1]
        if slots[slot, 0] == low and (stored ^ high) >> np.uint64(56) == 0:
            start, k = np.int64(stored & np.uint64(0xFFFFFFFFFFFFFF)), 0
            while k < size and text[start + k] == data[i + k]:
                k += 1
            if k == size:
                break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(nogil=True, cache=True)
def _remember(data, i, size, slot, slots, known, text, fill, out, at, number) -> None:  # type: ignore[no-untyped-def]
    """Puts a piece with its ids, out[at : at + number], into its empty slot; a full cache is emptied first."""
    low, high = piece_key(data, i, size)
    if fill[0] * 8 >= len(slots) * 5 or fill[1] + number > len(known) or fill[2] + size > len(text):
        slots[:] = 0
        fill[:] = 0
        slot = key_slot(low, high, len(slots))
    if size > INLINE:
        high |= np.uint64(fill[2])
        for k in range(size):
            text[fill[2] + k] = data[i + k]
        fill[2] += size
    value = np.uint64(out[at])
    if number > 1:
        value = np.uint64(fill[1])
        for k in range(number):
            known[fill[1] + k] = out[at + k]
        fill[1] += number
    slots[slot, 0], slots[slot, 1] = low, high
    slots[slot, 2] = value << np.uint64(8) | np.uint64(number)
    fill[0] += 1


@numba.njit(nogil=True, cache=True)
def _whole_token(data, i, stop, table, text, entries, out, at) -> int:  # type: ignore[no-untyped-def]
    """Puts the id of the piece into `out` at `at` and returns 1, if it is a token as it stands; else 0."""
    number = table[_whole_slot(data, i, stop, table, text, entries)]
    if number:
        out[at] = entries[number - 1, 2]
        return 1
    return 0


@numba.njit(nogil=True, cache=True)
def _whole_slot(data, i, stop, table, text, entries) -> int:  # type: ignore[no-untyped-def]
    """The slot that holds the number of the token data[i:stop], or the empty one where it would stand."""
    slot = key_slot(hash_bytes(data, i, stop - i), np.uint64(0), len(table))
    while table[slot]:
        start, end = entries[table[slot] - 1, 0], entries[table[slot] - 1, 1]
        if end - start == stop - i:
            k = 0
            while k < end - start and text[start + k] == data[i + k]:
                k += 1
            if k == end - start:
                break
        slot = (slot + 1) & (len(table) - 1)
    return slot


@numba.njit(nogil=True, cache=True)
def fill_whole(table, text, entries) -> None:  # type: ignore[no-untyped-def]
    for n in range(len(entries)):
        table[_whole_slot(text, entries[n, 0], entries[n, 1], table, text, entries)] = n + 1
