"""What the kernels know of characters, and how Arrow text reaches them.

Kernels (numba, `nogil`) read one UTF-8 buffer with offsets for a whole batch; no Python strings are made. `decode`
turns a document into code points, `KINDS` says what each code point is.
"""

from functools import cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LETTER, ALPHANUMERIC, SPACE, IDEOGRAPH, UNSPACED, UPPER, DIGIT, TERMINAL = 1, 2, 4, 8, 16, 32, 64, 128
"""Bits of a character's kind: str.isalpha, str.isalnum, str.isspace; Han or Kana (a word of its own); a letter of a
script that puts no spaces between words (those, Thai, Lao, Tibetan, Burmese, Khmer); str.isupper; str.isdigit; the end
of a sentence, in some script, or a closing quotation mark after it."""
IDEOGRAPHS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
UNSPACED_SCRIPTS = ((0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x0F40, 0x0FBC), (0x1000, 0x109F), (0x1780, 0x17D3))
TERMINAL_MARKS = "!\"'.?…‥‼‽⁇⁈⁉’”։؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫︒︕︖﹒﹖﹗！．？｡"
"""Unicode's sentence terminals (property STerm) of the basic plane, the ellipses, and quotation marks."""


@cache
def character_tables() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """(kind bits, lower-case code point) of every code point, 0x110000 entries each."""
    points = np.arange(0x110000, dtype=np.int32)
    text = points.copy().view("U1")
    kinds = np.char.isalpha(text) * LETTER + np.char.isalnum(text) * ALPHANUMERIC + np.char.isspace(text) * SPACE
    kinds += np.char.isupper(text) * UPPER + np.char.isdigit(text) * DIGIT
    for first, last in IDEOGRAPHS:
        kinds[first : last + 1] |= IDEOGRAPH | UNSPACED
    for first, last in UNSPACED_SCRIPTS:
        kinds[first : last + 1] |= (kinds[first : last + 1] & LETTER) * UNSPACED
    kinds[[ord(mark) for mark in TERMINAL_MARKS]] |= TERMINAL
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
def longest(offsets: NDArray[np.int64]) -> np.int64:
    """Bytes of the longest document between `offsets`, at least 1: room for the code points of any of them."""
    most = np.int64(1)
    for d in range(len(offsets) - 1):
        most = max(most, offsets[d + 1] - offsets[d])
    return most


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
def unit_end(p: NDArray[np.int32], i: int, end: int, kinds: NDArray[np.uint8]) -> int:
    """Where the word that begins at `p[i]`, which is no space, ends.

    Words are split at white space. Where the script has no spaces between words, each letter begins a word, and marks
    after it belong to it: "读《红楼梦》and more" is 读《 · 红 · 楼 · 梦》 · and · more.
    """
    unspaced = kinds[p[i]] & UNSPACED != 0
    i += 1
    while i < end:
        kind = kinds[p[i]]
        if kind & (SPACE | UNSPACED) or (unspaced and kind & ALPHANUMERIC):
            break
        i += 1
    return i


@numba.njit(nogil=True, cache=True)
def word_key(p: NDArray[np.int32], start: int, end: int) -> np.uint64:
    """A 64-bit hash of the code points `p[start:end]`."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        value = (value ^ np.uint64(p[i])) * np.uint64(0x100000001B3)
    return mix(value)


@numba.njit(nogil=True, cache=True)
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64-bit words in which every input bit moves every output bit (the finaliser of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
