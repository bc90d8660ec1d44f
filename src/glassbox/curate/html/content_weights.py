"""What the lines of a page weigh as running text, and which blocks are named as something else than content."""

import numba

from glassbox.curate.html import markup as m
from glassbox.curate.html.layout import (
    CELLS,
    CHARS,
    END,
    FLAGS,
    HEADING,
    ITEM,
    KIND,
    LEVEL,
    LINKED,
    NODE,
    PARENT,
    PRE,
    START,
    tags,
)

ELSEWHERE = m.NAV | m.FOOT | m.SIDE | m.SHARE | m.RELATED | m.FORM | m.AD
OWN = m.META | m.CAPTION
_ARTICLE, _MAIN, _HEADER, _NAV, _FOOTER, _ASIDE = tags("article main header nav footer aside")


@numba.njit(nogil=True, cache=True)
def sentence_end(text, start, end):  # type: ignore[no-untyped-def]
    """Whether a line ends as sentences do, quotes and brackets after the full stop allowed."""
    k = end - 1
    for _ in range(4):
        if k < start:
            return False
        c = text[k]
        if c == 46 or c == 33 or c == 63 or c == 58:
            return True
        if c == 34 or c == 39 or c == 41 or c == 32:
            k -= 1
        elif c >= 0x80 and k - 2 >= start:
            a, b = text[k - 2], text[k - 1]
            if a == 0xE3 and b == 0x80 and c == 0x82:  # 。
                return True
            if a == 0xEF and b == 0xBC and (c == 0x81 or c == 0x9F or c == 0x9A):  # ！？：
                return True
            if a == 0xE2 and b == 0x80 and c == 0xA6:  # …
                return True
            if (a == 0xE2 and b == 0x80) or (a == 0xE3 and b == 0x80):  # closing quotes
                k -= 3
            elif b == 0xC2 and c == 0xBB:  # »
                k -= 2
            else:
                return False
        else:
            return False
    return False


@numba.njit(nogil=True, cache=True)
def weight(text, line, ends, around):  # type: ignore[no-untyped-def]
    """How much running text a line is, in characters outside links (Chinese and its like count double).

    `around` is the text of its paragraph.
    """
    size = (line[END] - line[START] + line[CHARS]) * 0.5
    if line[KIND] == HEADING:
        return 0.0
    density = line[LINKED] / line[CHARS]
    if line[KIND] == PRE:
        return size * 0.7
    if density > 0.5:
        return 0.0
    free = size * (1.0 - density)
    if line[KIND] == CELLS:
        return free * 0.3 if free >= 60 else 0.0
    if line[KIND] == ITEM:
        return free * 0.6 if free >= 60 or (free >= 25 and ends) else 0.0
    if free >= 80 or around >= 160 or (free >= 30 and ends) or (line[LEVEL] and free >= 50):
        return free if line[LEVEL] else free * 0.9
    return 0.0


@numba.njit(nogil=True, cache=True)
def sums(lines, nodes, weights, dead, total, linked, chars, count):  # type: ignore[no-untyped-def]
    """Of every node's subtree: weight, linked characters, characters, lines; `dead` nodes count as empty."""
    total[:] = 0
    linked[:] = 0
    chars[:] = 0
    count[:] = 0
    for k in range(len(lines)):
        node = lines[k, NODE]
        if not dead[node]:
            total[node] += weights[k]
            linked[node] += lines[k, LINKED]
            chars[node] += lines[k, CHARS]
            count[node] += 1
    for node in range(len(nodes) - 1, 0, -1):
        parent = nodes[node, PARENT]
        total[parent] += total[node]
        linked[parent] += linked[node]
        chars[parent] += chars[node]
        count[parent] += count[node]


@numba.njit(nogil=True, cache=True)
def marked(nodes, total, seen, flag):  # type: ignore[no-untyped-def]
    """The weight in the outermost nodes that have a flag; `seen` is overwritten."""
    weight = 0.0
    seen[0] = False
    for node in range(1, len(nodes)):
        seen[node] = seen[nodes[node, PARENT]]
        if not seen[node] and nodes[node, FLAGS] & flag:
            weight += total[node]
            seen[node] = True
    seen[:] = False
    return weight


@numba.njit(nogil=True, cache=True)
def named_otherwise(flags, tag, share, rest, total, linked, visible, forum):  # type: ignore[no-untyped-def]
    """Whether a block is something else than content, going by its names and its share of the page's weight."""
    if flags & m.HIDDEN and visible >= 250:
        return True
    body = flags & m.BODY or tag in (_ARTICLE, _MAIN)
    if body and share > 0.2:
        return False
    if (tag in (_NAV, _FOOTER, _ASIDE)) and share < 0.5:
        return True
    if flags & m.COMMENT and not forum and (rest >= 400 or share < 0.3):
        return True
    if flags & ELSEWHERE == m.SHARE and total >= 60 and linked < 0.4 * total:
        # A post of a social network that the text quotes.
        return False
    if flags & ELSEWHERE == m.RELATED and total >= 60 and linked == 0:
        # A lead: `teaser` is also what the paragraph below the title is called.
        return False
    if flags & ELSEWHERE and share < 0.3:
        return True
    if flags & OWN and share < 0.12:
        return True
    return bool(flags & m.HEADER and share < 0.1 and (tag != _HEADER or total < 60))
