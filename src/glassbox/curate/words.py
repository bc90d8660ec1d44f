"""Words and their n-grams as hashes, for near duplicates, passages and decontamination: no strings are made.

A word is a run of letters and digits, lower-cased; where a script puts no spaces between words (Han, Kana, Thai, Lao,
Tibetan, Burmese, Khmer), each letter is a word of its own. In code a word is a run of letters, digits and _, case kept
(The Stack).
"""

from functools import cache
from typing import Literal

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, UNSPACED, character_tables, mix, utf8_buffer

SINGLE = 1 << 30
"""Bit of `word_characters` that marks a character which is a word of its own."""
BASE = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial in word hashes that hashes an n-gram."""
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a


@cache
def word_characters(unit: Literal["words", "code"] = "words") -> NDArray[np.int32]:
    """For every code point: 0 if it separates words, else the code point that is hashed, and SINGLE."""
    kinds, lower = character_tables()
    points = lower if unit == "words" else np.arange(len(lower), dtype=np.int32)
    out = np.where(kinds & ALPHANUMERIC, points | np.where(kinds & UNSPACED, SINGLE, 0), 0)
    if unit == "code":
        out[ord("_")] = ord("_")
    return out.astype(np.int32)


def word_hashes(text: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(documents,) large_string -> 64-bit hashes of all words in order, and each document's bounds (documents + 1,)."""
    data, offsets = utf8_buffer(text)
    hashes, bounds = np.empty(_most_words(offsets), np.uint64), np.zeros(len(text) + 1, np.int64)
    count = _words(data, offsets, word_characters(), hashes, bounds)
    return hashes[:count], bounds


def gram_hashes(
    words: NDArray[np.uint64], bounds: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of each document's n-grams of `size` words, and bounds. A shorter document is one gram of its words."""
    counts = np.diff(bounds)
    grams = np.zeros(len(bounds), np.int64)
    np.cumsum(np.where(counts >= size, counts - size + 1, np.minimum(counts, 1)), out=grams[1:])
    out = np.empty(grams[-1], np.uint64)
    _grams(words, bounds, size, grams, out)
    return out, grams


def _most_words(offsets: NDArray[np.int64]) -> int:
    """How many words texts with these offsets have at most: two words next to each other take three bytes each."""
    return int(offsets[-1] - offsets[0]) // 2 + len(offsets)


@numba.njit(nogil=True, cache=True, inline="always")
def code_point(data, i):  # type: ignore[no-untyped-def]
    """The character that begins at byte i, and where the next one begins. For valid UTF-8 beyond ASCII."""
    b = np.int32(data[i])
    if b < 0x80:
        return b, i + 1
    if b < 0xE0:
        return (b & 0x1F) << 6 | (np.int32(data[i + 1]) & 0x3F), i + 2
    if b < 0xF0:
        return (b & 0x0F) << 12 | (np.int32(data[i + 1]) & 0x3F) << 6 | (np.int32(data[i + 2]) & 0x3F), i + 3
    high = (b & 0x07) << 18 | (np.int32(data[i + 1]) & 0x3F) << 12
    return high | (np.int32(data[i + 2]) & 0x3F) << 6 | (np.int32(data[i + 3]) & 0x3F), i + 4


@numba.njit(nogil=True, cache=True)
def read_words(data, start, end, characters, hashes, starts, ends) -> int:  # type: ignore[no-untyped-def]
    """Hashes of the words of the valid UTF-8 `data[start:end]`, and the bytes of `data` where each begins and ends
    (`starts` and `ends` may both be None); returns how many words there are. The arrays need half as many places as
    there are bytes, and one more."""
    count, i, begin = 0, start, start
    value, inside = _BASIS, False
    while i < end:
        before = i
        if data[i] < 0x80:
            # Without a branch that the processor could foretell wrongly: the open place counts once the word ends.
            point = characters[data[i]]
            i += 1
            hashes[count] = value
            if starts is not None:
                starts[count], ends[count] = begin, before
            begin = begin if inside else before
            count += inside & (point == 0)
            value = (value ^ np.uint64(point)) * _PRIME if point else _BASIS
            inside = point != 0
            continue
        point, i = code_point(data, i)
        point = characters[point]
        if point and not point & SINGLE:
            begin = begin if inside else before
            value, inside = (value ^ np.uint64(point)) * _PRIME, True
            continue
        if inside:
            hashes[count] = value
            if starts is not None:
                starts[count], ends[count] = begin, before
            count, value, inside = count + 1, _BASIS, False
        if point:
            hashes[count] = (_BASIS ^ np.uint64(point & ~SINGLE)) * _PRIME
            if starts is not None:
                starts[count], ends[count] = before, i
            count += 1
    if inside:
        hashes[count] = value
        if starts is not None:
            starts[count], ends[count] = begin, end
        count += 1
    for k in range(count):
        hashes[k] = mix(hashes[k])
    return count


@numba.njit(nogil=True, cache=True)
def in_characters(data, byte, character, starts, ends):  # type: ignore[no-untyped-def]
    """Turns ascending bytes of `data`, where words begin and end, into characters, in place, counted from a byte whose
    number in characters is known; returns byte and character of the last one."""
    for k in range(len(starts)):
        while byte < starts[k]:
            character += (data[byte] & 0xC0) != 0x80
            byte += 1
        starts[k] = character
        while byte < ends[k]:
            character += (data[byte] & 0xC0) != 0x80
            byte += 1
        ends[k] = character
    return byte, character


@numba.njit(nogil=True, cache=True)
def read_grams(words, size, out) -> int:  # type: ignore[no-untyped-def]
    """Hashes of the n-grams of `size` of `words` (all words if there are fewer) into `out`, which may be `words`
    itself; returns how many. A gram is a polynomial in its words modulo 2^64, rolled along and mixed at the end."""
    if not len(words):
        return 0
    size = min(size, len(words))
    power = np.uint64(1)
    value = np.uint64(0)
    for i in range(size):
        value = value * BASE + words[i]
        power *= BASE
    length = np.uint64(size) * power
    leaves = words[0]
    out[0] = mix(value + length)
    for i in range(size, len(words)):
        value = value * BASE + words[i] - leaves * power
        leaves = words[i - size + 1]
        out[i - size + 1] = mix(value + length)
    return len(words) - size + 1


@numba.njit(nogil=True, cache=True)
def _words(data, offsets, characters, hashes, bounds) -> int:  # type: ignore[no-untyped-def]
    for d in range(len(bounds) - 1):
        rest = hashes[bounds[d] :]
        bounds[d + 1] = bounds[d] + read_words(data, offsets[d], offsets[d + 1], characters, rest, None, None)
    return bounds[-1]


@numba.njit(nogil=True, cache=True)
def _grams(words, bounds, size, grams, out) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(bounds) - 1):
        read_grams(words[bounds[d] : bounds[d + 1]], size, out[grams[d] : grams[d + 1]])
