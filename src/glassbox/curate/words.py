"""Word n-grams as hashes, for near duplicates and decontamination: no strings are made.

A word is a run of letters and digits, lower-cased; each Han or Kana character is a word of its own.
"""

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, IDEOGRAPH, character_tables, decode, mix, utf8_buffer


def word_hashes(text: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(documents,) large_string -> 64-bit hashes of all words in order, and each document's bounds (documents + 1,)."""
    data, offsets = utf8_buffer(text)
    kinds, lower = character_tables()
    size = int(offsets[-1] - offsets[0])
    hashes, bounds = np.empty(size, np.uint64), np.zeros(len(text) + 1, np.int64)
    longest = int(np.diff(offsets).max(initial=1))
    count = _words(data, offsets, kinds, lower, np.empty(longest, np.int32), hashes, bounds)
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


@numba.njit(nogil=True, cache=True)
def _words(data, offsets, kinds, lower, points, hashes, bounds) -> int:  # type: ignore[no-untyped-def]
    count = 0
    for d in range(len(bounds) - 1):
        n = decode(data, offsets[d], offsets[d + 1], points)
        i = 0
        while i < n:
            kind = kinds[points[i]]
            if not kind & ALPHANUMERIC:
                i += 1
                continue
            value = np.uint64(0xCBF29CE484222325)
            while True:
                value = (value ^ np.uint64(lower[points[i]])) * np.uint64(0x100000001B3)
                i += 1
                if kind & IDEOGRAPH or i == n or not kinds[points[i]] & ALPHANUMERIC or kinds[points[i]] & IDEOGRAPH:
                    break
            hashes[count] = mix(value)
            count += 1
        bounds[d + 1] = count
    return count


@numba.njit(nogil=True, cache=True)
def _grams(words, bounds, size, grams, out) -> None:  # type: ignore[no-untyped-def]
    """Polynomial in the word hashes, modulo 2^64, mixed at the end."""
    base = np.uint64(0x9E3779B97F4A7C15)
    for d in range(len(bounds) - 1):
        start, end = bounds[d], bounds[d + 1]
        length = min(size, end - start)
        for k in range(grams[d + 1] - grams[d]):
            value = np.uint64(length)
            for i in range(start + k, start + k + length):
                value = value * base + words[i]
            out[grams[d] + k] = mix(value)
