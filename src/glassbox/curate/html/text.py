"""Text of a page into the line at hand: blanks made one, character references decoded, formulas between dollars."""

import numba
import numpy as np

from glassbox.curate.html.attributes import find_byte
from glassbox.curate.html.layout import (
    ALT,
    ALT_END,
    CHARS_NOW,
    LINE_START,
    LINK,
    LINKED_NOW,
    MATHS_NOW,
    OUT,
    PRE_DEPTH,
    SKIP,
    SOFT,
    SPACE,
)
from glassbox.curate.html.markup import look_up


@numba.njit(nogil=True, cache=True)
def _put(out, o, point):  # type: ignore[no-untyped-def]
    """Writes a code point as UTF-8; the place after it."""
    if point < 0x80:
        out[o] = point
        return o + 1
    if point < 0x800:
        out[o] = 0xC0 | point >> 6
        out[o + 1] = 0x80 | point & 0x3F
        return o + 2
    if point < 0x10000:
        out[o] = 0xE0 | point >> 12
        out[o + 1] = 0x80 | point >> 6 & 0x3F
        out[o + 2] = 0x80 | point & 0x3F
        return o + 3
    out[o] = 0xF0 | point >> 18
    out[o + 1] = 0x80 | point >> 12 & 0x3F
    out[o + 2] = 0x80 | point >> 6 & 0x3F
    out[o + 3] = 0x80 | point & 0x3F
    return o + 4


@numba.njit(nogil=True, cache=True)
def _reference(data, i, keys, values):  # type: ignore[no-untyped-def]
    """Code points (one or two in a number; 0: none) of the reference that starts at the & in data[i], and its end."""
    n = len(data)
    k = i + 1
    if k < n and data[k] == 35:
        k += 1
        point = 0
        hexadecimal = k < n and (data[k] | 32) == 120
        k += hexadecimal
        start = k
        while k < n and k - start < 10:
            c = data[k]
            low = c | 32
            if c >= 48 and c <= 57:
                digit = c - 48
            elif hexadecimal and low >= 97 and low <= 102:
                digit = low - 87
            else:
                break
            point = point * (16 if hexadecimal else 10) + digit
            k += 1
        if k == start:
            return 0, i + 1
        if k < n and data[k] == 59:
            k += 1
        if point > 0x10FFFF or (point >= 0xD800 and point < 0xE000) or point == 0:
            point = 0xFFFD
        return point, k
    value = np.uint64(0xCBF29CE484222325)
    while k < n and k - i < 34:
        c = data[k]
        if not (((c | 32) >= 97 and (c | 32) <= 122) or (c >= 48 and c <= 57)):
            break
        value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
        k += 1
    if k < n and data[k] == 59:
        points = look_up(keys, values, (value ^ np.uint64(59)) * np.uint64(0x100000001B3))
        if points:
            return points, k + 1
    return look_up(keys, values, value), k


@numba.njit(nogil=True, cache=True)
def _character(point, out, state):  # type: ignore[no-untyped-def]
    """Adds a character that came from a reference."""
    if point == 0xAD or point == 0x200B or point == 0xFEFF or (point < 32 and point not in (9, 10, 13)):
        return
    if state[PRE_DEPTH] >= 0:
        out[state[OUT]] = 32
        state[OUT] = state[OUT] + 1 if point == 0xA0 else _put(out, state[OUT], point)
        state[CHARS_NOW] += point > 32
        return
    if point <= 32:
        state[SPACE] = 1
        return
    if point == 0xA0:
        # Kept inside a line as a blank; several are an indent or a gap.
        out[state[OUT]] = 32
        state[OUT] += 1
        state[SPACE] = 0
        return
    if state[SPACE]:
        if state[OUT] > state[LINE_START]:
            out[state[OUT]] = 32
            state[OUT] += 1
        state[SPACE] = 0
    state[OUT] = _put(out, state[OUT], point)
    state[CHARS_NOW] += 1
    state[LINKED_NOW] += state[LINK]
    state[MATHS_NOW] = 0


@numba.njit(nogil=True, cache=True)
def _blank(data, i, out, o, line_start, soft):  # type: ignore[no-untyped-def]
    """Writes the blank at data[i] inside <pre>; the places after it. In a code table (`soft`) the markup itself is
    broken into lines and indented: none of that is text."""
    n, c = len(data), data[i]
    if c == 13:
        if i + 1 >= n or data[i + 1] != 10:
            out[o] = 10
            o += 1
        return i + 1, o
    if not soft or (c != 10 and o != line_start and out[o - 1] != 10):
        out[o] = c
        return i + 1, o + 1
    if o != line_start and out[o - 1] != 10:
        return i + 1, o
    k, broken = i, False
    while k < n and not broken and (data[k] == 32 or (data[k] >= 9 and data[k] <= 13)):
        broken = data[k] == 10
        k += 1
    if broken or k == n or data[k] == 60:
        return k, o
    while i < k:
        out[o] = data[i]
        o += 1
        i += 1
    return i, o


@numba.njit(nogil=True, cache=True)
def _unseen(data, i) -> int:  # type: ignore[no-untyped-def]
    """Bytes of the fixed blank, soft hyphen, zero-width space or byte-order mark that begins at data[i]; else 0."""
    left, c = len(data) - i, data[i]
    if c == 0xC2 and left > 1 and (data[i + 1] == 0xA0 or data[i + 1] == 0xAD):
        return 2
    if c == 0xE2 and left > 2 and data[i + 1] == 0x80 and data[i + 2] == 0x8B:
        return 3
    return 3 if c == 0xEF and left > 2 and data[i + 1] == 0xBB and data[i + 2] == 0xBF else 0


@numba.njit(nogil=True, cache=True)
def read_text(data, i, out, state, keys, values):  # type: ignore[no-untyped-def]
    """Reads text up to the next <; the first byte is text whatever it is."""
    n = len(data)
    if state[SKIP] >= 0:
        return find_byte(data, i + 1, 60)
    verbatim = state[PRE_DEPTH] >= 0
    soft = state[SOFT]
    o, line_start, space = state[OUT], state[LINE_START], state[SPACE]
    chars, linked, link = 0, 0, state[LINK]
    first = True
    while i < n:
        c = data[i]
        if c == 60 and not first:
            break
        first = False
        if c == 38:
            points, k = _reference(data, i, keys, values)
            if points:
                state[OUT], state[SPACE] = o, space
                state[CHARS_NOW] += chars
                state[LINKED_NOW] += linked
                chars = linked = 0
                _character(points & 0xFFFFFFFF, out, state)
                if points >> 32:
                    _character(points >> 32, out, state)
                o, space = state[OUT], state[SPACE]
                i = k
                continue
        if c <= 32:
            if c == 32 or (c >= 9 and c <= 13):
                if verbatim:
                    i, o = _blank(data, i, out, o, line_start, soft)
                    continue
                space = 1
            i += 1
            continue
        if c >= 0xC2:
            width = _unseen(data, i)
            if width:
                if c == 0xC2 and data[i + 1] == 0xA0:
                    out[o] = 32
                    o += 1
                    space = 0
                i += width
                continue
        if space:
            if o > line_start:
                out[o] = 32
                o += 1
            space = 0
        out[o] = c
        o += 1
        one = (c & 0xC0) != 0x80
        chars += one
        linked += one and link
        i += 1
    if chars:
        state[MATHS_NOW] = 0
    state[OUT], state[SPACE] = o, space
    state[CHARS_NOW] += chars
    state[LINKED_NOW] += linked
    return i


@numba.njit(nogil=True, cache=True)
def _dollars(out, state, display):  # type: ignore[no-untyped-def]
    if state[SPACE] and state[OUT] > state[LINE_START]:
        out[state[OUT]] = 32
        state[OUT] += 1
    state[SPACE] = 0
    for _ in range(1 + display):
        out[state[OUT]] = 36
        state[OUT] += 1


@numba.njit(nogil=True, cache=True)
def read_formula(data, i, kind, out, state):  # type: ignore[no-untyped-def]
    """A formula that stands as TeX in a script element; the place after the element."""
    n = len(data)
    end = i
    while end < n and not (data[end] == 60 and end + 1 < n and data[end + 1] == 47):
        end += 1
    a, b = i, end
    while a < b and data[a] <= 32:
        a += 1
    while b > a and data[b - 1] <= 32:
        b -= 1
    if a < b:
        _dollars(out, state, kind == 2)
        for k in range(a, b):
            out[state[OUT]] = data[k] if data[k] > 32 else 32
            state[OUT] += 1
        state[CHARS_NOW] += b - a
        for _ in range(kind):
            out[state[OUT]] = 36
            state[OUT] += 1
        state[MATHS_NOW] = 1
    return find_byte(data, end, 62) + 1


@numba.njit(nogil=True, cache=True)
def read_image(data, found, out, state, keys, values):  # type: ignore[no-untyped-def]
    """A formula that stands as TeX in the alt text of an image, dollars around it taken off."""
    a, b = found[ALT], found[ALT_END]
    while a < b and (data[a] <= 32 or data[a] == 36):
        a += 1
    while b > a and (data[b - 1] <= 32 or data[b - 1] == 36):
        b -= 1
    if a == b:
        return
    _dollars(out, state, 0)
    while a < b:
        if data[a] == 38:
            points, k = _reference(data, a, keys, values)
            if points and k <= b:
                state[OUT] = _put(out, state[OUT], points & 0xFFFFFFFF)
                if points >> 32:
                    state[OUT] = _put(out, state[OUT], points >> 32)
                state[CHARS_NOW] += 1
                a = k
                continue
        out[state[OUT]] = data[a] if data[a] > 32 else 32
        state[OUT] += 1
        state[CHARS_NOW] += 1
        a += 1
    out[state[OUT]] = 36
    state[OUT] += 1


@numba.njit(nogil=True, cache=True)
def write_power(following, out, state):  # type: ignore[no-untyped-def]
    """Writes ^ for a raised number after a letter, digit or bracket: 10<sup>6</sup> is not 106."""
    c, low = out[state[OUT] - 1], out[state[OUT] - 1] | 32
    number = (following >= 48 and following <= 57) or following == 45 or following == 43
    if number and ((c >= 48 and c <= 57) or (low >= 97 and low <= 122) or c == 41):
        out[state[OUT]] = 94
        state[OUT] += 1
