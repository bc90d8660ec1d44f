"""Shingles and MinHash signatures of texts.

A signature holds, for each of P hash functions, the smallest hash of a document's shingles; two documents agree in a
slot with the probability of their Jaccard similarity J, so the share of agreeing slots estimates J with variance
J(1 - J)/P (Broder 1997).
"""

from functools import cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import SPACE, character_tables, mix, utf8_buffer
from glassbox.curate.words import BASE, code_point, read_grams, read_words, word_characters
from glassbox.recipe.duplicates import NearDuplicates

EMPTY = np.uint32(0xFFFFFFFF)
"""Every slot of a document without shingles (a shingle hashes to it once in four billion)."""
_BLANK = 32


def signatures(texts: pa.Array, settings: NearDuplicates) -> NDArray[np.uint32]:
    """(documents,) large_string -> (documents, permutations) MinHash signatures; all EMPTY without shingles.

    Hash functions are h -> a h + b modulo 2^32 with a odd, of the upper half h of a shingle's hash: bijections, so that
    the smallest value is that of a shingle drawn evenly from the set.
    """
    data, offsets = utf8_buffer(texts)
    out = np.full((len(texts), settings.permutations), EMPTY, np.uint32)
    a, b = _permutations(settings.permutations)
    _signatures(data, offsets, _characters(settings.unit), settings.unit == "characters", settings.ngram, a, b, out)
    return out


def shingle_sets(texts: pa.Array, settings: NearDuplicates) -> list[NDArray[np.uint64]]:
    """(documents,) large_string -> the sorted hashes of each document's shingles, each once."""
    data, offsets = utf8_buffer(texts)
    characters, by_character = _characters(settings.unit), settings.unit == "characters"
    return [
        np.unique(_shingles(data, offsets[d], offsets[d + 1], characters, by_character, settings.ngram))
        for d in range(len(texts))
    ]


@cache
def _permutations(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    random = np.array([mix(value) for value in np.arange(1, 2 * count + 1, dtype=np.uint64)], np.uint64)
    upper = (random >> np.uint64(32)).astype(np.uint32)
    return upper[::2] | np.uint32(1), upper[1::2].copy()


@cache
def _characters(unit: str) -> NDArray[np.int32]:
    """For every code point what is hashed. For units of characters a blank for white space, 0 for ASCII punctuation."""
    if unit != "characters":
        return word_characters("code" if unit == "code" else "words")
    kinds, lower = character_tables()
    out = np.where(kinds & SPACE, _BLANK, lower).astype(np.int32)
    out[[ord(sign) for sign in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"]] = 0
    return out


@numba.njit(nogil=True, cache=True)
def _signatures(data, offsets, characters, by_character, size, a, b, out) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(out)):
        _minima(_shingles(data, offsets[d], offsets[d + 1], characters, by_character, size), a, b, out[d])


@numba.njit(nogil=True, cache=True)
def _shingles(data, start, end, characters, by_character, size):  # type: ignore[no-untyped-def]
    """Hashes of the shingles of `data[start:end]`, in order, with repetitions."""
    if by_character:
        units = np.empty(end - start, np.uint64)
        count = _read_characters(data, start, end, characters, units)
    else:
        units = np.empty((end - start) // 2 + 1, np.uint64)
        count = read_words(data, start, end, characters, units, None, None)
    return units[: read_grams(units[:count], size, units)]


@numba.njit(nogil=True, cache=True)
def _read_characters(data, start, end, characters, units) -> int:  # type: ignore[no-untyped-def]
    """Lower-cased characters without ASCII punctuation, runs of white space as one blank, none at the ends."""
    count, i = 0, start
    blank = False
    while i < end:
        point, i = code_point(data, i)
        point = characters[point]
        if point == _BLANK:
            blank = count > 0
        elif point:
            if blank:
                units[count] = np.uint64(_BLANK) * BASE
                count += 1
                blank = False
            units[count] = np.uint64(point) * BASE
            count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _upper(shingles, i) -> np.uint32:  # type: ignore[no-untyped-def]
    """The upper half of the i-th hash, of the last one beyond the end."""
    return np.uint32(shingles[min(i, len(shingles) - 1)] >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _minima(shingles, a, b, row) -> None:  # type: ignore[no-untyped-def]
    """Four shingles at a time, so that a slot is loaded and stored once for four."""
    for i in range(0, len(shingles), 4):
        one, other = _upper(shingles, i), _upper(shingles, i + 1)
        third, fourth = _upper(shingles, i + 2), _upper(shingles, i + 3)
        for k in range(len(a)):
            first = min(np.uint32(np.uint32(a[k] * one) + b[k]), np.uint32(np.uint32(a[k] * other) + b[k]))
            second = min(np.uint32(np.uint32(a[k] * third) + b[k]), np.uint32(np.uint32(a[k] * fourth) + b[k]))
            row[k] = min(row[k], min(first, second))
