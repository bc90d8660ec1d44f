"""The kernel that finds the places of a text that may hold personal data, so that nothing else is looked at twice."""

import numba
import numpy as np
from numpy.typing import NDArray

AT, DIGITS, GROUPS, KEY_START = 0, 1, 2, 3
"""What a place may hold: an e-mail address, a number, an address of version 6, a key."""
FEWEST_DIGITS = 5
"""Digits in a stretch that is looked at: 11.1.1.1 has five."""
KEY_MARKS = np.array(
    sorted(
        int.from_bytes(mark)
        for mark in (
            b"AKI",
            b"ASI",
            b"ghp",
            b"gho",
            b"ghu",
            b"ghs",
            b"ghr",
            b"git",
            b"glp",
            b"sk-",
            b"sk_",
            b"rk_",
            b"xox",
        )
    )
    + [int.from_bytes(mark) for mark in (b"AIz", b"hf_", b"---")],
    np.int64,
)
"""The three bytes that access keys and private keys begin with."""


def places(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Bounds of each text's places (texts + 1,), and the places: kind, start and end in bytes of their text."""
    first = np.zeros(len(offsets), np.int64)
    room = int(offsets[-1] - offsets[0]) // 64 + 64
    while True:
        found = np.empty((room, 3), np.int64)
        count = _find(data, offsets, KEY_MARKS, first, found)
        if count <= room:
            return first, found[:count, 0], found[:count, 1], found[:count, 2]
        room = count


@numba.njit(nogil=True, cache=True)
def _find(data, offsets, marks, first, out) -> int:  # type: ignore[no-untyped-def]
    """Places worth a look: an @; stretches with FEWEST_DIGITS digits and at most 3 of ` .-()+` between two; runs of
    hexadecimal digits and colons with 3 colons; what begins as a key. Returns how many, also if `out` has less room."""
    count = 0
    for d in range(len(first) - 1):
        begin, stop = offsets[d], offsets[d + 1]
        start, end, digits, colon, grouped = -1, -1, 0, -9, 0
        for i in range(begin, stop + 1):
            byte = np.int64(data[i]) if i < stop else 10
            kind, left, right = -1, i, i + 1
            if 48 <= byte <= 57:
                if start < 0:
                    start, digits = i, 0
                digits += 1
                end = i + 1
                continue
            if start >= 0 and not (i - end < 3 and (byte == 32 or (40 <= byte <= 46 and byte not in (42, 44)))):
                if digits >= FEWEST_DIGITS:
                    # An opening bracket or a plus before the first digit belongs to the number.
                    while start > begin and (data[start - 1] == 40 or data[start - 1] == 43):
                        start -= 1
                    _put(out, count, DIGITS, start - begin, end - begin)
                    count += 1
                start = -1
            if byte == 64:
                kind = AT
            elif byte == 58:
                if i - colon <= 5:
                    left, right, colons = _groups(data, begin, stop, i)
                    if colons >= 3 and right - left <= 39 and right - begin > grouped:
                        kind, grouped = GROUPS, right - begin
                colon = i
            elif _begins_key(byte) and i + 3 < stop and (i == begin or not _joins(data[i - 1])):
                mark = byte << 16 | np.int64(data[i + 1]) << 8 | np.int64(data[i + 2])
                for known in marks:
                    if mark == known:
                        kind = KEY_START
            if kind >= 0:
                _put(out, count, kind, left - begin, right - begin)
                count += 1
        first[d + 1] = count
    return count


@numba.njit(nogil=True, cache=True, inline="always")
def _put(out, count, kind, start, end) -> None:  # type: ignore[no-untyped-def]
    if count < len(out):
        out[count, 0], out[count, 1], out[count, 2] = kind, start, end


@numba.njit(nogil=True, cache=True, inline="always")
def _joins(byte) -> bool:  # type: ignore[no-untyped-def]
    """Whether a byte is a letter, a digit, _ or -."""
    return 48 <= byte <= 57 or 97 <= (byte | 32) <= 122 or byte == 95 or byte == 45


@numba.njit(nogil=True, cache=True)
def _groups(data, begin, stop, place) -> tuple[int, int, int]:  # type: ignore[no-untyped-def]
    """Bounds of the hexadecimal digits and colons around a colon, no further than 40 bytes, and how many colons."""
    left, right, colons = place, place, 0
    while left > begin and place - left <= 40 and _in_group(data[left - 1]):
        left -= 1
    while right < stop and right - place <= 40 and _in_group(data[right]):
        right += 1
    for i in range(left, right):
        colons += data[i] == 58
    return left, right, colons


@numba.njit(nogil=True, cache=True, inline="always")
def _in_group(byte) -> bool:  # type: ignore[no-untyped-def]
    return 48 <= byte <= 58 or 97 <= (byte | 32) <= 102


@numba.njit(nogil=True, cache=True, inline="always")
def _begins_key(byte) -> bool:  # type: ignore[no-untyped-def]
    """Whether a byte is the first of one of KEY_MARKS: A - g h r s x."""
    return byte == 65 or byte == 45 or byte == 103 or byte == 104 or byte == 114 or byte == 115 or byte == 120
