"""Pre-tokenisation by hand: where the regular expressions of published byte-level tokenizers cut a text into pieces.

The kernels walk over UTF-8 bytes and look up what a character is; small ones that every piece passes are inlined, which
halves the time. The classes of characters are asked of the regular
expression engine of the `tokenizers` library, so both always know the same Unicode.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numba
import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)
"""What a character is: NEWLINE is CR or LF, SPACE any other white space (the regular expressions' \\s)."""
ANY_LENGTH = 1 << 62
APOSTROPHE, BLANK = ord("'"), ord(" ")


@dataclass(frozen=True)
class Pattern:
    """A pre-tokenisation."""

    digits: int = ANY_LENGTH
    """Most number characters in one piece."""
    signed: bool = True
    """Words may begin with any one sign and line ends stick to signs (GPT-4 and after), instead of a space alone."""
    marks: bool = False
    """Combining marks (\\p{M}) count as letters (Qwen3-Next)."""


GPT2 = Pattern(signed=False)
"""What the library's `ByteLevel` does by itself."""


@cache
def patterns() -> dict[str, Pattern]:
    """Regular expression, as tokenizer.json files have it -> what it does.

    The forms differ in how contractions are written, and by possessive quantifiers, which change speed but no match.
    """
    known = {}
    tail = r"|\s+(?!\S)|\s+"
    for short in (r"'s|'t|'re|'ve|'m|'ll|'d", r"'(?:[sdmt]|ll|ve|re)"):
        known[rf"{short}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+{tail}"] = GPT2
    shorts = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?i:[sdmt]|ll|ve|re)")
    digits = {r"\p{N}": 1, r"\p{N}{1,2}": 2, r"\p{N}{1,3}": 3, r"\p{N}+": ANY_LENGTH}
    for short, (digit, count) in product(shorts, digits.items()):
        for marks, signs in (("", r"\s\p{L}\p{N}"), (r"\p{M}", r"\s\p{L}\p{M}\p{N}")):
            letters = rf"[\p{{L}}{marks}]+" if marks else r"\p{L}+"
            words = rf"{short}|[^\r\n\p{{L}}\p{{N}}]?{letters}|{digit}"
            known[rf"{words}| ?[^{signs}]+[\r\n]*|\s*[\r\n]+{tail}"] = Pattern(count, True, bool(marks))
        eager = rf"{short}|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|{digit}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]+{tail}"
        known[eager] = known[eager.replace("?+", "?").replace("++", "+")]
    return known


@cache
def character_classes(marks: bool) -> NDArray[np.uint8]:
    """(0x110000,) the class of every code point."""
    classes = np.full(0x110000, OTHER, np.uint8)
    kinds = {r"\p{L}": LETTER, r"\p{N}": NUMBER, r"\s": SPACE, r"[\r\n]": NEWLINE}
    for pattern, kind in (kinds | ({r"\p{M}": LETTER} if marks else {})).items():
        runs = pre_tokenizers.Split(Regex(f"{pattern}+"), behavior="removed", invert=True)
        for first in (*range(0, 0x40000, 0x2000), 0xE0000):  # nothing else is, or may soon be, in one of these classes
            points = [point for point in range(first, first + 0x2000) if not 0xD800 <= point < 0xE000]
            for _, (start, end) in runs.pre_tokenize_str("".join(map(chr, points))) if points else ():
                classes[points[start:end]] = kind
    return classes


@numba.njit(nogil=True, cache=True)
def next_piece(data, i, end, classes, signed, digits) -> int:  # type: ignore[no-untyped-def]
    """Where the piece that begins at byte i ends; data (bytes,) uint8 is valid UTF-8 up to `end`."""
    if data[i] == APOSTROPHE:
        size = contraction(data, i, end, signed)
        if size:
            return i + size
    point, size = point_at(data, i)
    kind = classes[point]
    after = i + size
    if kind == LETTER:
        return run_end(data, after, end, classes, LETTER)
    if kind == NUMBER:
        return _number_end(data, after, end, classes, digits - 1)
    signs, is_signs = i, kind == OTHER
    if after < end:
        following, size = point_at(data, after)
        next_kind = classes[following]
        if next_kind == LETTER and kind != NEWLINE and (signed or point == BLANK):
            return run_end(data, after + size, end, classes, LETTER)
        if point == BLANK and next_kind == NUMBER and not signed:
            return run_end(data, after + size, end, classes, NUMBER)
        if point == BLANK and next_kind == OTHER:
            signs, is_signs = after, True
    if is_signs:
        stop = run_end(data, signs, end, classes, OTHER)
        while signed and stop < end and (data[stop] == 10 or data[stop] == 13):
            stop += 1
        return stop
    return _space_end(data, i, end, classes, signed)


@numba.njit(nogil=True, cache=True, inline="always")
def run_end(data, i, end, classes, kind) -> int:  # type: ignore[no-untyped-def]
    """The end of the run of characters of one kind from byte i on."""
    while i < end:
        if data[i] < 0x80:
            if classes[data[i]] != kind:
                break
            i += 1
        else:
            point, size = point_at(data, i)
            if classes[point] != kind:
                break
            i += size
    return i


@numba.njit(nogil=True, cache=True)
def contraction(data, i, end, fold) -> int:  # type: ignore[no-untyped-def]
    """Bytes of 's 't 'm 'd 're 've 'll at the apostrophe at byte i, or 0; `fold`: in any case, and U+017F is an s."""
    if i + 1 == end:
        return 0
    case = np.uint8(0x20 if fold else 0)
    first = data[i + 1] | case
    if first == ord("s") or first == ord("t") or first == ord("m") or first == ord("d"):
        return 2
    if i + 2 == end:
        return 0
    second = data[i + 2] | case
    if (first == ord("r") or first == ord("v")) and second == ord("e"):
        return 3
    if (first == ord("l") and second == ord("l")) or (fold and data[i + 1] == 0xC5 and data[i + 2] == 0xBF):
        return 3
    return 0


@numba.njit(nogil=True, cache=True)
def _number_end(data, i, end, classes, left) -> int:  # type: ignore[no-untyped-def]
    while i < end and left > 0:
        point, size = point_at(data, i)
        if classes[point] != NUMBER:
            break
        i += size
        left -= 1
    return i


@numba.njit(nogil=True, cache=True)
def _space_end(data, i, end, classes, signed) -> int:  # type: ignore[no-untyped-def]
    """White space up to its last line end (GPT-4); else all of it, less the last character if a word follows."""
    start, last, line = i, i, 0
    while i < end:
        point, size = point_at(data, i)
        kind = classes[point]
        if kind != SPACE and kind != NEWLINE:
            break
        last = i
        i += size
        if kind == NEWLINE:
            line = i
    if signed and line:
        return line
    return i if i == end or last == start else last


@numba.njit(nogil=True, cache=True, inline="always")
def point_at(data, i):  # type: ignore[no-untyped-def]
    """The code point at byte i and its length in bytes."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return (b & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), 2
    if b < 0xF0:
        return (b & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F), 3
    high = (b & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
    return high | (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F), 4
