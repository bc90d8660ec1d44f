"""Which texts may not be in Unicode's normal form C: found without normalising them."""

import unicodedata
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.tokens.pieces import point_at

LAST_LETTER = 0x32400
"""Characters from here on are rare (none is assigned below plane 14 today)."""


def nfc_suspects(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(texts,) whether a text has a character of `suspicious_characters`; offsets (texts + 1,) into UTF-8 data."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    _suspects(data, offsets, suspicious_characters(), found)
    return found


@cache
def suspicious_characters() -> NDArray[np.bool_]:
    """(0x110000,) characters in whose presence a text may not be in NFC: those that normalisation changes, combining
    ones, those that a composition ends with, and those that this interpreter's tables do not know."""
    suspects = np.ones(0x110000, bool)
    points = [point for point in range(LAST_LETTER) if not 0xD800 <= point < 0xE000]
    suspects[: points[-1] + 1] = False
    for point in points:
        character = chr(point)
        apart = unicodedata.normalize("NFD", character)
        if unicodedata.combining(character) or unicodedata.category(character) == "Cn":
            suspects[point] = True
        elif apart != character:
            suspects[point] |= unicodedata.normalize("NFC", character) != character
            suspects[[ord(part) for part in apart[1:]]] = True
    return suspects


@numba.njit(nogil=True, cache=True)
def _suspects(data, offsets, suspects, found) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(found)):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            if data[i] < 0x80:
                i += 1
                continue
            point, size = point_at(data, i)
            if suspects[point]:
                found[d] = True
                break
            i += size
