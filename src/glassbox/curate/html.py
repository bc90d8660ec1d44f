"""A web page to lines of text with their place in the tree: one pass of a kernel over the bytes, without recursion.

The tree is not built: a stack of open elements (depth-limited) closes what HTML leaves open (paragraphs, items, cells),
and every block element, and every other that a class name says something about, leaves a node with its parent, tag and
flags. Time and memory are linear in the bytes of the page whatever is in it.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate import markup as m
from glassbox.curate.markup import TAG, look_up, markup

START, END, NODE, KIND, LEVEL, LINKED, CHARS, ROW, CELL, BREAK, LINKS = range(11)
"""Columns of a line: bytes of the text, node, kind, level (of a heading or list; 100 x number for numbered items),
characters in links, characters without spaces (bytes that are no UTF-8 continuation), table row and cell (-1: none),
break before it (0 paragraph, 1 <br>, 2 several), links."""
PARENT, ELEMENT, FLAGS, FIRST = range(4)
"""Columns of a node: parent (-1: the root), tag number, flags, first line at or after its start."""
PLAIN, HEADING, ITEM, CELLS, PRE, MATHS = range(6)
"""Kinds of line."""
MAX_DEPTH = 256
MAX_NODES = 1_000_000
MAX_LINES = 1_000_000
SCOPE = 64
"""Open elements that an end tag or an implied end looks through."""

STACK_TAG, STACK_NODE, STACK_ROW, STACK_CELL, STACK_COUNT, STACK_LINE = range(6)
OUT, LINE_START, SPACE, LINES, NODES, DEPTH, SKIP, PRE_DEPTH, SOFT, LINK, LINK_DEPTH, LINKED_NOW, CHARS_NOW, BREAK_NOW, \
    ITEM_NOW, ROWS, CELL_SERIAL, LINKS_NOW, MATHS_NOW = range(19)  # fmt: skip
"""The kernel's state: places in one array of int64, so that small functions share it."""

_BLOCK, _VOID, _SKIP, _RAW = m.BLOCK, m.VOID, m.SKIP, m.RAW
_A, _BR, _P, _LI, _UL, _OL, _TR, _TD, _TH, _TABLE, _PRE, _IMG, _SCRIPT, _MATH, _BODY, _HTML, _DT, _DD, _DL, _SUP = (
    TAG[name] for name in "a br p li ul ol tr td th table pre img script math body html dt dd dl sup".split()
)
_THEAD, _TBODY, _TFOOT, _H1, _H6, _HEAD, _CODE = (TAG[name] for name in "thead tbody tfoot h1 h6 head code".split())
_LISTING, _DIR, _MENU, _FORM, _DIV, _TEXTAREA = (TAG[name] for name in "listing dir menu form div textarea".split())


class Page(NamedTuple):
    """A page as lines and nodes."""

    text: NDArray[np.uint8]
    """UTF-8 of all lines."""
    lines: NDArray[np.int32]
    """(lines, 11)."""
    nodes: NDArray[np.int32]
    """(nodes, 4); a node stands after its parent."""


def parse(html: bytes) -> Page:
    """The lines and nodes of a page in UTF-8."""
    data = np.frombuffer(html, np.uint8)
    tables = markup()
    tags = int(np.count_nonzero(data == ord("<")))
    text = np.empty(len(data) + len(data) // 4 + 64, np.uint8)
    lines = np.empty((min(tags + 2, MAX_LINES), 11), np.int32)
    nodes = np.empty((min(tags + 2, MAX_NODES), 4), np.int32)
    state = np.zeros(19, np.int64)
    _scan(
        data, tables.tags.keys, tables.tags.values, tables.kinds, tables.flags, tables.attributes.keys,
        tables.attributes.values, tables.words.keys, tables.words.values, tables.roles.keys, tables.roles.values,
        tables.references.keys, tables.references.values, text, lines, nodes, state,
    )  # fmt: skip
    return Page(text[: state[OUT]], lines[: state[LINES]], nodes[: state[NODES]])


@numba.njit(nogil=True, cache=True)
def _scan(  # type: ignore[no-untyped-def]
    data, tag_keys, tag_values, kinds, own_flags, attribute_keys, attribute_values, word_keys, word_values, role_keys,
    role_values, reference_keys, reference_values, out, lines, nodes, state,
) -> None:  # fmt: skip
    n = len(data)
    stack = np.zeros((MAX_DEPTH + 1, 6), np.int32)
    counts = np.zeros(len(kinds), np.int32)
    found = np.zeros(8, np.int64)
    nodes[0, PARENT], nodes[0, ELEMENT], nodes[0, FLAGS], nodes[0, FIRST] = -1, 0, 0, 0
    stack[0, STACK_ROW] = stack[0, STACK_CELL] = -1
    state[NODES] = 1
    state[DEPTH] = 1
    state[SKIP] = state[PRE_DEPTH] = state[LINK_DEPTH] = state[ITEM_NOW] = -1
    i = 0
    while i < n:
        if data[i] != 60 or i + 1 >= n:
            i = _text(data, i, out, state, reference_keys, reference_values)
            continue
        c = data[i + 1]
        letter = (c | 32) >= 97 and (c | 32) <= 122
        if c == 33:
            i = _comment(data, i)
            continue
        if c == 63:
            i = _find_byte(data, i, 62) + 1
            continue
        if c == 47 and i + 2 < n and (data[i + 2] | 32) >= 97 and (data[i + 2] | 32) <= 122:
            key, k = _name(data, i + 2)
            tag = look_up(tag_keys, tag_values, key)
            k = _find_byte(data, k, 62) + 1
            _end(tag, kinds[tag], stack, counts, out, lines, state)
            i = k
            continue
        if not letter:
            i = _text(data, i, out, state, reference_keys, reference_values)
            continue
        key, k = _name(data, i + 1)
        tag = look_up(tag_keys, tag_values, key)
        found[:] = 0
        i = _attributes(
            data, k, found, attribute_keys, attribute_values, word_keys, word_values, role_keys, role_values
        )
        kind = kinds[tag]
        if tag == _SCRIPT and found[1] and state[SKIP] < 0:
            i = _formula(data, i, found[1], out, state)
            continue
        if kind & _RAW:
            i = _raw_end(data, i, key)
            continue
        if tag == 0 or (found[4] and kind & _SKIP):
            continue
        _start(tag, kind, own_flags[tag] | found[0], stack, counts, out, lines, nodes, state)
        if tag == _IMG and found[0] & m.MATH and found[3] > found[2] and state[SKIP] < 0 and not state[MATHS_NOW]:
            _image(data, found, out, state, reference_keys, reference_values)
    while state[DEPTH] > 1:
        _pop_one(stack, counts, True, out, lines, state)
    _flush(stack, counts, out, lines, state)


@numba.njit(nogil=True, cache=True)
def _find_byte(data, i, byte):  # type: ignore[no-untyped-def]
    n = len(data)
    while i < n and data[i] != byte:
        i += 1
    return i


@numba.njit(nogil=True, cache=True)
def _comment(data, i):  # type: ignore[no-untyped-def]
    """The place after a comment or declaration."""
    n = len(data)
    if i + 3 < n and data[i + 2] == 45 and data[i + 3] == 45:
        k = i + 4
        if k < n and data[k] == 62:
            return k + 1
        while k < n:
            if data[k] == 62 and data[k - 1] == 45 and data[k - 2] == 45:
                return k + 1
            k += 1
        return n
    return _find_byte(data, i, 62) + 1


@numba.njit(nogil=True, cache=True)
def _name(data, i):  # type: ignore[no-untyped-def]
    """The hash of an element's name, and the place after it."""
    n = len(data)
    value = np.uint64(0xCBF29CE484222325)
    while i < n:
        c = data[i]
        if c <= 32 or c == 62 or c == 47:
            break
        if c >= 65 and c <= 90:
            c |= 32
        value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
        i += 1
    return value, i


@numba.njit(nogil=True, cache=True)
def _raw_end(data, i, key):  # type: ignore[no-untyped-def]
    """The place after the end tag of an element whose content is no markup."""
    n = len(data)
    while i < n:
        while i < n and data[i] != 60:
            i += 1
        if i + 2 < n and data[i + 1] == 47:
            other, k = _name(data, i + 2)
            if other == key:
                return _find_byte(data, k, 62) + 1
        i += 1
    return n


@numba.njit(nogil=True, cache=True)
def _attributes(  # type: ignore[no-untyped-def]
    data, k, found, attribute_keys, attribute_values, word_keys, word_values, role_keys, role_values
):
    """Reads a start tag's attributes into `found` (flags, formula kind, alt from, alt to); the place after the tag."""
    n = len(data)
    while k < n:
        c = data[k]
        if c == 62:
            found[4] = data[k - 1] == 47
            return k + 1
        if c <= 32 or c == 47:
            k += 1
            continue
        value = np.uint64(0xCBF29CE484222325)
        start = k
        while k < n:
            c = data[k]
            if c <= 32 or c == 62 or c == 47 or (c == 61 and k > start):
                break
            if c >= 65 and c <= 90:
                c |= 32
            value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
            k += 1
        while k < n and data[k] <= 32:
            k += 1
        a = b = k
        if k < n and data[k] == 61:
            k += 1
            while k < n and data[k] <= 32:
                k += 1
            if k < n and (data[k] == 34 or data[k] == 39):
                quote = data[k]
                a = k + 1
                b = _find_byte(data, a, quote)
                k = b + 1
            else:
                a = k
                while k < n and data[k] > 32 and data[k] != 62:
                    k += 1
                b = k
        what = look_up(attribute_keys, attribute_values, value)
        if what == 0:
            continue
        if what == 1:
            found[0] |= _words(data, a, b, word_keys, word_values)
        elif what == 2:
            found[0] |= look_up(role_keys, role_values, _name(data[a:b], 0)[0])
        elif what == 3:
            if _has(data, a, b, "display:none") or _has(data, a, b, "display: none") or _has(data, a, b, "visibility:hidden") or _has(data, a, b, "visibility: hidden"):
                found[0] |= m.HIDDEN
        elif what == 4:
            found[0] |= m.HIDDEN
        elif what == 5:
            if _has(data, a, b, "articlebody"):
                found[0] |= m.BODY
        elif what == 6:
            if _has(data, a, b, "math/tex"):
                found[1] = 2 if _has(data, a, b, "mode=display") else 1
        elif what == 7:
            found[2], found[3] = a, b
        elif what == 8 and (
            _has(data, a, b, "latex.php")
            or _has(data, a, b, "codecogs")
            or _has(data, a, b, "/math/render/")
            or _has(data, a, b, "mathtex.cgi")
            or _has(data, a, b, "mimetex")
        ):
            found[0] |= m.MATH
    return n


@numba.njit(nogil=True, cache=True)
def _has(data, a, b, needle):  # type: ignore[no-untyped-def]
    """Whether data[a:b], lower-cased, has an ASCII string in it; only the first 2,000 bytes are looked at."""
    size = len(needle)
    for i in range(a, min(b, a + 2000) - size + 1):
        hit = True
        for j in range(size):
            c = data[i + j]
            if c >= 65 and c <= 90:
                c |= 32
            if c != ord(needle[j]):
                hit = False
                break
        if hit:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _words(data, a, b, keys, values):  # type: ignore[no-untyped-def]
    """Flags of a class or id: of its tokens ('_' read as '-'), and of their words (parted by signs, digits and case)."""
    flags = 0
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    opening = (basis ^ np.uint64(61)) * prime
    token, word = opening, basis
    inside = False
    before_lower = False
    for i in range(a, b + 1):
        c = data[i] if i < b else np.uint8(32)
        upper = c >= 65 and c <= 90
        if upper:
            c |= 32
        alpha = c >= 97 and c <= 122
        if inside and (not alpha or (upper and before_lower)):
            flags |= look_up(keys, values, word)
            word = basis
            inside = False
        if alpha:
            word = (word ^ np.uint64(c)) * prime
            inside = True
        if c <= 32:
            if token != opening:
                flags |= look_up(keys, values, token)
            token = opening
        else:
            token = (token ^ np.uint64(45 if c == 95 else c)) * prime
        before_lower = alpha and not upper
    return flags


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
        if not ((c | 32) >= 97 and (c | 32) <= 122 or c >= 48 and c <= 57):
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
def _text(data, i, out, state, keys, values):  # type: ignore[no-untyped-def]
    """Reads text up to the next <; the first byte is text whatever it is."""
    n = len(data)
    if state[SKIP] >= 0:
        i += 1
        while i < n and data[i] != 60:
            i += 1
        return i
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
                if not verbatim:
                    space = 1
                elif c == 13:
                    if i + 1 >= n or data[i + 1] != 10:
                        out[o] = 10
                        o += 1
                elif soft:
                    # Markup of a code table is indented itself.
                    if c != 10 and o > line_start and out[o - 1] != 10:
                        out[o] = c
                        o += 1
                else:
                    out[o] = c
                    o += 1
            i += 1
            continue
        if c == 0xC2 and i + 1 < n and (data[i + 1] == 0xA0 or data[i + 1] == 0xAD):
            if data[i + 1] == 0xA0:
                out[o] = 32
                o += 1
                space = 0
            i += 2
            continue
        if (c == 0xE2 and i + 2 < n and data[i + 1] == 0x80 and data[i + 2] == 0x8B) or (
            c == 0xEF and i + 2 < n and data[i + 1] == 0xBB and data[i + 2] == 0xBF
        ):
            i += 3
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
def _formula(data, i, kind, out, state):  # type: ignore[no-untyped-def]
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
    return _find_byte(data, end, 62) + 1


@numba.njit(nogil=True, cache=True)
def _image(data, found, out, state, keys, values):  # type: ignore[no-untyped-def]
    """A formula that stands as TeX in the alt text of an image, dollars around it taken off."""
    a, b = found[2], found[3]
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
def _flush(stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    """Ends the line at hand, if there is anything in it."""
    if state[PRE_DEPTH] >= 0:
        o = state[OUT]
        if o > state[LINE_START] and out[o - 1] != 10:
            out[o] = 10
            state[OUT] += 1
        return
    _record(stack, counts, out, lines, state, PLAIN)


@numba.njit(nogil=True, cache=True)
def _record(stack, counts, out, lines, state, kind):  # type: ignore[no-untyped-def]
    o, start = state[OUT], state[LINE_START]
    while o > start and (out[o - 1] == 32 or out[o - 1] == 10 or out[o - 1] == 9):
        o -= 1
    state[SPACE] = 0
    top = state[DEPTH] - 1
    if kind == PRE:
        while start < o and out[start] == 10:
            start += 1
        numbers = True
        for k in range(start, o):
            numbers &= out[k] <= 57 and (out[k] <= 32 or out[k] >= 48)
        if numbers:
            o = start
    if o <= start or not state[CHARS_NOW]:
        state[OUT] = state[LINE_START]
        state[CHARS_NOW] = state[LINKED_NOW] = state[LINKS_NOW] = 0
        return
    if state[LINES] == len(lines):
        # More lines than any page of use has: the rest is put into the last one.
        lines[state[LINES] - 1, END] = o
        out[o] = 32
        state[OUT] = state[LINE_START] = o + 1
        state[CHARS_NOW] = state[LINKED_NOW] = state[LINKS_NOW] = 0
        return
    line = lines[state[LINES]]
    line[START], line[END], line[NODE] = start, o, stack[top, STACK_NODE]
    line[KIND], line[LEVEL] = kind, 0
    if kind == PLAIN:
        line[LEVEL] = min(counts[_P], 1)
        for level in range(6):
            if counts[_H1 + level]:
                line[KIND], line[LEVEL] = HEADING, level + 1
        depth = counts[_UL] + counts[_OL]
        if line[KIND] == PLAIN and state[ITEM_NOW] >= 0:
            line[KIND], line[LEVEL] = ITEM, min(max(depth, 1), 8) + 100 * min(state[ITEM_NOW], 9_999_999)
    state[ITEM_NOW] = -1
    line[LINKED], line[CHARS], line[LINKS] = state[LINKED_NOW], state[CHARS_NOW], state[LINKS_NOW]
    line[ROW], line[CELL] = stack[top, STACK_ROW], stack[top, STACK_CELL]
    line[BREAK] = state[BREAK_NOW]
    state[LINES] += 1
    state[BREAK_NOW] = 0
    state[CHARS_NOW] = state[LINKED_NOW] = state[LINKS_NOW] = 0
    if line[CELL] >= 0:
        # What stands between two cells if the row becomes one line.
        out[o], out[o + 1], out[o + 2] = 32, 124, 32
        o += 3
    state[OUT] = state[LINE_START] = o


@numba.njit(nogil=True, cache=True)
def _merge_row(depth, stack, lines, state):  # type: ignore[no-untyped-def]
    """Makes the cells of a table row one line, if each is one short line."""
    first, last = stack[depth, STACK_LINE], state[LINES]
    row = stack[depth, STACK_ROW]
    if last - first < 2 or lines[last - 1, END] - lines[first, START] > 1500:
        return
    for k in range(first, last):
        if lines[k, ROW] != row or lines[k, KIND] == PRE or (k > first and lines[k, CELL] == lines[k - 1, CELL]):
            return
    for k in range(first + 1, last):
        lines[first, LINKED] += lines[k, LINKED]
        lines[first, CHARS] += lines[k, CHARS]
        lines[first, LINKS] += lines[k, LINKS]
    lines[first, END] = lines[last - 1, END]
    lines[first, KIND], lines[first, LEVEL] = CELLS, 0
    state[LINES] = first + 1


@numba.njit(nogil=True, cache=True)
def _end(tag, kind, stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    if tag == _A:
        state[LINK], state[LINK_DEPTH] = 0, -1
        return
    if tag == _BR:
        _break(stack, counts, out, lines, state)
        return
    if not tag or not counts[tag] or tag == _BODY or tag == _HTML:
        if kind & _BLOCK and tag != _BODY and tag != _HTML:
            _flush(stack, counts, out, lines, state)
        return
    block = kind & _BLOCK
    table = tag == _TR or tag == _TABLE or (tag >= _THEAD and tag <= _TFOOT) or tag == _TD or tag == _TH
    depth = state[DEPTH] - 1
    for _ in range(MAX_DEPTH):
        if depth < 1:
            return
        other = stack[depth, STACK_TAG]
        if other == tag:
            break
        if not table and (other == _TD or other == _TH or other == _TABLE):
            return
        if tag != _TABLE and table and other == _TABLE:
            return
        if tag == _LI and (other == _UL or other == _OL):
            return
        if not block and depth < state[DEPTH] - 1 - SCOPE:
            return
        depth -= 1
    if depth < 1:
        return
    if not block:
        # Misnested: an inline end tag does not close blocks.
        for k in range(depth + 1, state[DEPTH]):
            if stack[k, STACK_CELL] != stack[depth, STACK_CELL] or stack[k, STACK_NODE] != stack[depth, STACK_NODE]:
                return
    while state[DEPTH] > depth:
        _pop_one(stack, counts, block, out, lines, state)


@numba.njit(nogil=True, cache=True)
def _pop_one(stack, counts, block, out, lines, state):  # type: ignore[no-untyped-def]
    top = state[DEPTH] - 1
    tag = stack[top, STACK_TAG]
    if state[PRE_DEPTH] == top:
        state[PRE_DEPTH] = -1
        state[SOFT] = 0
        _record(stack, counts, out, lines, state, PRE)
    elif block:
        _flush(stack, counts, out, lines, state)
        state[BREAK_NOW] = 0
    if tag == _TR and state[PRE_DEPTH] < 0:
        _merge_row(top, stack, lines, state)
    if state[SKIP] == top:
        state[SKIP] = -1
    if state[LINK_DEPTH] >= top:
        state[LINK], state[LINK_DEPTH] = 0, -1
    counts[tag] -= 1
    state[DEPTH] = top


@numba.njit(nogil=True, cache=True)
def _break(stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    if state[PRE_DEPTH] >= 0:
        out[state[OUT]] = 10
        state[OUT] += 1
        return
    before = state[LINES]
    _flush(stack, counts, out, lines, state)
    state[BREAK_NOW] = 1 if state[LINES] > before else min(state[BREAK_NOW] + 1, 2)


@numba.njit(nogil=True, cache=True)
def _start(tag, kind, flags, stack, counts, out, lines, nodes, state):  # type: ignore[no-untyped-def]
    if tag == _A:
        if state[SKIP] < 0:
            state[LINK], state[LINK_DEPTH] = 1, state[DEPTH] - 1
            state[LINKS_NOW] += 1
            if flags & (m.HIDDEN | m.GUTTER):
                state[LINK] = 1
        return
    if tag == _BR:
        if state[SKIP] < 0:
            _break(stack, counts, out, lines, state)
        return
    if kind & _VOID:
        return
    if (tag == _BODY or tag == _HTML) and counts[tag]:
        return
    block = kind & _BLOCK
    if block:
        if tag == _LI:
            _close(_LI, _LI, _UL, _OL, _TABLE, stack, counts, out, lines, state)
        elif tag == _DT or tag == _DD:
            _close(min(_DT, _DD), max(_DT, _DD), _DL, _TABLE, _TABLE, stack, counts, out, lines, state)
        elif tag == _TD or tag == _TH:
            _close(min(_TD, _TH), max(_TD, _TH), _TR, _TABLE, _TABLE, stack, counts, out, lines, state)
        elif tag == _TR:
            _close(_TR, _TR, _TABLE, _TABLE, _TABLE, stack, counts, out, lines, state)
        elif tag >= _THEAD and tag <= _TFOOT:
            _close(_THEAD, _TFOOT, _TABLE, _TABLE, _TABLE, stack, counts, out, lines, state)
        elif counts[_P]:
            _close(_P, _P, _TD, _TABLE, _TH, stack, counts, out, lines, state)
        if state[SKIP] < 0:
            _flush(stack, counts, out, lines, state)
            state[BREAK_NOW] = 0
    depth = state[DEPTH]
    if depth > MAX_DEPTH - 1:
        return
    parent = stack[depth - 1]
    entry = stack[depth]
    entry[STACK_TAG], entry[STACK_NODE] = tag, parent[STACK_NODE]
    entry[STACK_ROW], entry[STACK_CELL] = parent[STACK_ROW], parent[STACK_CELL]
    entry[STACK_COUNT], entry[STACK_LINE] = 0, state[LINES]
    counts[tag] += 1
    state[DEPTH] = depth + 1
    if state[SKIP] >= 0:
        return
    inline_hidden = not block and flags & m.HIDDEN and tag != _MATH
    drawn = flags & m.DRAWN or (flags & m.DRAWN_SPAN and not block)
    gutter = flags & m.GUTTER and tag != _PRE and tag != _CODE and tag != _BODY and tag != _TABLE
    if kind & _SKIP or drawn or gutter or inline_hidden:
        state[SKIP] = depth
        return
    if tag == _TABLE:
        entry[STACK_ROW] = entry[STACK_CELL] = -1
    elif tag == _TR:
        state[ROWS] += 1
        entry[STACK_ROW] = state[ROWS]
        entry[STACK_CELL] = -1
    elif tag == _TD or tag == _TH:
        state[CELL_SERIAL] += 1
        entry[STACK_CELL] = state[CELL_SERIAL]
    elif tag == _LI:
        number = 0
        if stack[depth - 1, STACK_TAG] == _OL:
            stack[depth - 1, STACK_COUNT] += 1
            number = stack[depth - 1, STACK_COUNT]
        state[ITEM_NOW] = number
    if block and state[NODES] < len(nodes) and tag != _P:
        node = nodes[state[NODES]]
        node[PARENT], node[ELEMENT], node[FIRST] = parent[STACK_NODE], tag, state[LINES]
        node[FLAGS] = 0 if tag == _BODY or tag == _HTML else flags
        entry[STACK_NODE] = state[NODES]
        state[NODES] += 1
    elif block and state[NODES] < len(nodes) and flags:
        node = nodes[state[NODES]]
        node[PARENT], node[ELEMENT], node[FIRST], node[FLAGS] = parent[STACK_NODE], tag, state[LINES], flags
        entry[STACK_NODE] = state[NODES]
        state[NODES] += 1
    if state[PRE_DEPTH] < 0 and (tag == _PRE or tag == _LISTING or (block and flags & m.CODE)):
        state[PRE_DEPTH] = depth
        state[SOFT] = tag != _PRE and tag != _LISTING


@numba.njit(nogil=True, cache=True)
def _close(first, last, barrier_a, barrier_b, barrier_c, stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    """An implied end: closes the nearest open element with a tag in first..last that is not outside a barrier."""
    depth = state[DEPTH] - 1
    for _ in range(SCOPE):
        if depth < 1:
            return
        tag = stack[depth, STACK_TAG]
        if tag >= first and tag <= last:
            while state[DEPTH] > depth:
                _pop_one(stack, counts, True, out, lines, state)
            return
        if tag == barrier_a or tag == barrier_b or tag == barrier_c:
            return
        depth -= 1
