"""What the kernels know of characters, and how Arrow text reaches them.

Kernels (numba, `nogil`) read one UTF-8 buffer with offsets for a whole batch; no Python strings are made. `decode`
turns a document into code points, `KINDS` says what each code point is.
"""

from functools import cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LETTER, ALPHANUMERIC, SPACE, IDEOGRAPH = 1, 2, 4, 8
"""Bits of a character's kind: str.isalpha, str.isalnum, str.isspace, and Han or Kana (a word of its own)."""
IDEOGRAPHS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


@cache
def character_tables() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(kind bits, lower-case code point) of every code point, 0x110000 entries each."""
    points = np.arange(0x110000, dtype=np.int32)
    text = points.copy().view("U1")
    kinds = np.char.isalpha(text) * LETTER + np.char.isalnum(text) * ALPHANUMERIC + np.char.isspace(text) * SPACE
    for first, last in IDEOGRAPHS:
        kinds[first : last + 1] |= IDEOGRAPH
    # Of the one character that lower-cases to two (U+0130) the first is taken.
    lower = np.char.lower(text).astype("U1").view(np.int32)
    return kinds.astype(np.uint8), np.where(lower == 0, points, lower).astype(np.int32)


def utf8_buffer(text: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of an Arrow large_string array without nulls, and offsets (n + 1,) into them; no copy."""
    assert pa.types.is_large_string(text.type)
    assert not text.null_count
    _, offsets, data = text.buffers()
    starts = np.frombuffer(offsets, np.int64, len(text) + 1, text.offset * 8) if len(text) else np.zeros(1, np.int64)
    return np.frombuffer(data or b"", np.uint8), starts


@numba.njit(nogil=True, cache=True)
def decode(data: NDArray[np.uint8], start: int, end: int, out: NDArray[np.int32]) -> int:
    """Code points of the valid UTF-8 `data[start:end]` into `out`; returns how many."""
    n, i = 0, start
    while i < end:
        b = np.int32(data[i])
        if b < 0x80:
            out[n] = b
            i += 1
        elif b < 0xE0:
            out[n] = (b & 0x1F) << 6 | (np.int32(data[i + 1]) & 0x3F)
            i += 2
        elif b < 0xF0:
            out[n] = (b & 0x0F) << 12 | (np.int32(data[i + 1]) & 0x3F) << 6 | (np.int32(data[i + 2]) & 0x3F)
            i += 3
        else:
            high = (b & 0x07) << 18 | (np.int32(data[i + 1]) & 0x3F) << 12
            out[n] = high | (np.int32(data[i + 2]) & 0x3F) << 6 | (np.int32(data[i + 3]) & 0x3F)
            i += 4
        n += 1
    return n


@numba.njit(nogil=True, cache=True)
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit words in which every input bit moves every output bit (the finaliser of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
