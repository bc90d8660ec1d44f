"""Mending broken text: UTF-8 that was read as another encoding, stray control characters, Unicode form NFC.

Done by ftfy on the documents that may need it; all others are passed through as they are. What changes how readers see
sound text (straight quotes, ligatures, the full-width punctuation of Chinese) is left alone.
"""

import unicodedata

import ftfy
import numba
import numpy as np
import pyarrow as pa
from ftfy.badness import is_bad
from numpy.typing import NDArray

from glassbox.curate.characters import utf8_buffer

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
BEYOND_ASCII, CONTROL = 1, 2
"""Bits of what a text holds; 0 needs no look."""


def repair(texts: pa.Array) -> pa.Array:
    """The texts (large_string, no nulls) with broken encodings mended, control characters removed, in form NFC."""
    kinds = np.empty(len(texts), np.uint8)
    _look(*utf8_buffer(texts), kinds)
    if not kinds.any():
        return texts
    changed = {}
    for row in np.flatnonzero(kinds).tolist():
        text = texts[row].as_py()
        mended = _mended(text, bool(kinds[row] & CONTROL))
        if mended != text:
            changed[row] = mended
    if not changed:
        return texts
    return pa.array([changed.get(row, text) for row, text in enumerate(texts.to_pylist())], pa.large_string())


def _mended(text: str, control: bool) -> str:
    if control or is_bad(text):
        return ftfy.fix_text(text, CONFIG)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


@numba.njit(nogil=True, cache=True)
def _look(data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """What each text holds: characters beyond ASCII, control characters (C0 but for white space; C1; the byte-order
    mark and its like)."""
    for d in range(len(out)):
        kind = 0
        start, end = offsets[d], offsets[d + 1]
        for i in range(start, end):
            byte = data[i]
            if byte >= 0x80:
                kind |= BEYOND_ASCII
                if (byte == 0xC2 and data[i + 1] < 0xA0) or (byte == 0xEF and data[i + 1] in (0xBB, 0xBF)):
                    kind |= CONTROL
            elif byte == 0x7F or (byte < 0x20 and byte not in (9, 10, 12, 13)):
                kind |= CONTROL
        out[d] = kind
