"""Mending broken text: UTF-8 that was read as another encoding, stray control characters, Unicode form NFC.

Done by ftfy on the documents that may need it; all others are passed through as they are. What changes how readers see
sound text (straight quotes, ligatures, the full-width punctuation of Chinese) is left alone.
"""

import re
import unicodedata
from functools import cache

import ftfy
import numba
import numpy as np
import pyarrow as pa
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from numpy.typing import NDArray

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.words import code_point

CONFIG = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization="NFC",
    max_decode_length=100_000,
    explain=False,
)
CONTROL, SUSPECT, COMPOSABLE, STACKED = 1, 2, 4, 8
"""Bits of what a text holds; 0 needs no look."""
COMBINING, MARK, SIGN = 1, 2, 4
"""Bits of a character: combines with the one before it, or may be changed by form NFC; belongs to the characters that
mistaken encodings give; is one of those that are rare in sound text next to another."""
CONTROLS = re.compile("[\\x00-\\x08\\x0b\\x0e-\\x1f\\x7f-\\x9f\\ufeff\\ufff9-\\ufffc\\u206a-\\u206f]")
"""C0 but for white space, C1, the byte-order mark and its like: what ftfy takes out."""
LONGEST_STACK = 30
"""Combining characters in a row that text has at most (Unicode's stream-safe format, UAX 15); more take a time that
grows with their square, and are left as they are."""
LAST_COMPOSED = 0x2FA20
"""No character beyond it has a canonical decomposition or composes, but for rare marks."""
JAMO = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]
"""The second and third letters of Korean syllables, which compose by rule."""
OTHER_MARKS = " \xa0\xad¡´–—°†≠ŒœŠšŸŽž×²³à√±®™µø≈‚ìîïòôúùûóâ€вЂГўβāΆ"
"""Characters that ftfy's heuristic names one by one."""


def repair(texts: pa.Array) -> pa.Array:
    """The texts (large_string, no nulls) with broken encodings mended, control characters removed, in form NFC."""
    kinds = np.empty(len(texts), np.uint8)
    _look(*utf8_buffer(texts), _characters(), kinds)
    changed = {}
    for row in np.flatnonzero(kinds).tolist():
        text = texts[row].as_py()
        mended = _mended(text, int(kinds[row]))
        if mended != text:
            changed[row] = mended
    if not changed:
        return texts
    return pa.array([changed.get(row, text) for row, text in enumerate(texts.to_pylist())], pa.large_string())


def _mended(text: str, kind: int) -> str:
    if kind & STACKED:
        return text
    if kind & (CONTROL | SUSPECT):
        text = "\n".join(_mended_line(line) for line in text.split("\n"))
    return unicodedata.normalize("NFC", text) if kind & COMPOSABLE else text


def _mended_line(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return ftfy.fix_text(line, CONFIG) if CONTROLS.search(line) or is_bad(line) else line


@cache
def _characters() -> NDArray[np.uint8]:
    """Bits of every code point."""
    out = np.zeros(0x110000, np.uint8)
    for point in range(0xA0, LAST_COMPOSED):
        letter = chr(point)
        parts = unicodedata.decomposition(letter).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            out[int(parts[1], 16)] |= COMBINING
        if unicodedata.combining(letter) or (parts and not unicodedata.is_normalized("NFC", letter)):
            out[point] |= COMBINING
    out[JAMO] |= COMBINING
    for name, letters in MOJIBAKE_CATEGORIES.items():
        member = re.compile(f"[{letters}]")
        found = [point for point in range(0x80, 0x10000) if member.match(chr(point))]
        out[found] |= MARK if name in ("lower_common", "upper_common", "common") else MARK | SIGN
    out[[ord(letter) for letter in OTHER_MARKS]] |= MARK
    out[ord("Ђ")] |= SIGN
    out[:0x80] = 0
    return out


@numba.njit(nogil=True, cache=True)
def _look(data, offsets, characters, out) -> None:  # type: ignore[no-untyped-def]
    """What each text holds (CONTROL ..). Control characters: C0 but for white space, C1, the byte-order mark."""
    for d in range(len(out)):
        kind, stack, before = 0, 0, 0
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            byte = data[i]
            if byte < 0x80:
                if byte == 0x7F or (byte < 0x20 and byte not in (9, 10, 12, 13)):
                    kind |= CONTROL
                stack, before = 0, 0
                i += 1
                continue
            point, i = code_point(data, i)
            bits = characters[point]
            if point < 0xA0 or point == 0xFEFF or 0xFFF9 <= point <= 0xFFFC or 0x206A <= point <= 0x206F:
                kind |= CONTROL
            if bits & COMBINING:
                kind |= COMPOSABLE
                stack += 1
                if stack > LONGEST_STACK:
                    kind |= STACKED
            else:
                stack = 0
            if before & bits & MARK and (before | bits) & SIGN:
                kind |= SUSPECT
            alone = point == 0xC2 or point == 0xC3 or point == 0x152 or point == 0x153  # Â Ã Œ œ
            if alone and (i == end or data[i] <= 0x40):
                kind |= SUSPECT
            before = bits
        out[d] = kind
