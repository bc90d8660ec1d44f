"""Features of a classifier: which n-grams of words a text has, hashed into buckets, and how much of each.

A word is a run of letters and digits, lower-cased, each Han or Kana character one of its own; a run of the same sign is
a word too (code and page furniture show in their signs). A feature's value is the root of its count, and a text's
values have length 1, so that neither long texts nor common words outweigh the others.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, IDEOGRAPH, SPACE, decode, mix

READ_BYTES = 200_000
"""How much of a text is read: the features of a longer one are those of its beginning."""


@numba.njit(nogil=True, cache=True)
def read_words(data, start, end, kinds, lower, points, words, places) -> int:  # type: ignore[no-untyped-def]
    """Hashes of the words of `data[start:end]`, and the character each begins at; returns how many."""
    if end - start > READ_BYTES:
        end = start + READ_BYTES
        while end > start and data[end] & 0xC0 == 0x80:  # never inside a character
            end -= 1
    n = decode(data, start, end, points)
    i = count = 0
    while i < n:
        kind = kinds[points[i]]
        value = np.uint64(0xCBF29CE484222325)
        if kind & ALPHANUMERIC:
            places[count] = i
            while True:
                value = (value ^ np.uint64(lower[points[i]])) * np.uint64(0x100000001B3)
                i += 1
                if kind & IDEOGRAPH or i == n or not kinds[points[i]] & ALPHANUMERIC or kinds[points[i]] & IDEOGRAPH:
                    break
        elif kind & SPACE:
            i += 1
            continue
        else:
            places[count] = i
            sign = points[i]
            value ^= np.uint64(sign)
            while i < n and points[i] == sign:
                i += 1
        words[count] = mix(value)
        count += 1
    places[count] = n
    return count


@numba.njit(nogil=True, cache=True, inline="always")
def bucket_of(value, buckets):  # type: ignore[no-untyped-def]
    """The bucket of an n-gram whose words were folded into `value`; even for any number of buckets below 2^32."""
    return np.int64((mix(value) >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def read_features(words, count, ngram, seen, stamp, index, values) -> int:  # type: ignore[no-untyped-def]
    """The text's features: bucket (`index`) and value of each, from its `words`; returns how many.

    `seen` (buckets,) int64 holds, of the last text that had a bucket, stamp << 32 | place; a stamp is used once.
    """
    base = np.uint64(0x9E3779B97F4A7C15)
    n = total = 0
    for i in range(count):
        value = np.uint64(0)
        for j in range(i, min(i + ngram, count)):
            value = value * base + words[j]
            bucket = bucket_of(value, len(seen))
            total += 1
            if seen[bucket] >> 32 == stamp:
                values[seen[bucket] & 0xFFFFFFFF] += np.float32(1)
            else:
                seen[bucket] = np.int64(stamp) << 32 | n
                index[n], values[n] = bucket, np.float32(1)
                n += 1
    for i in range(n):
        values[i] = np.sqrt(values[i] / np.float32(total))
    return n


def scratch(
    longest: int, ngram: int, buckets: int
) -> tuple[
    NDArray[np.int32], NDArray[np.uint64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]
]:
    """Working memory of the kernels for texts of up to `longest` bytes: points, words, places, seen, index, values."""
    size = min(longest, READ_BYTES) + 1
    features = min(size * ngram, buckets)
    return (
        np.empty(size, np.int32),
        np.empty(size, np.uint64),
        np.empty(size + 1, np.int32),
        np.zeros(buckets, np.int64),
        np.empty(features, np.int64),
        np.empty(features, np.float32),
    )
