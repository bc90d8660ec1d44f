"""Which lines of a page are its content: a kernel that weighs paragraphs, picks a part of the tree and prunes it.

1. Every line weighs what it holds of running text (length, outside links, with sentence punctuation).
2. Blocks whose element, class, id, role or style says that they are something else (navigation, sharing, comments,
   advertising, hidden, ...) fall away, unless so much of the page's weight is in them that the name cannot be meant so.
3. The part of the tree that is named as the text (itemprop articleBody, entry-content, ...), else as an article, else
   the deepest that holds most of the weight, is the content.
4. In it, lists and lines that are nearly all links, and short lines before the first and after the last paragraph, go.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate import markup as m
from glassbox.curate.html import Page
from glassbox.curate.html_layout import (
    BREAK,
    CELLS,
    CHARS,
    ELEMENT,
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
_ARTICLE, _MAIN, _HEADER, _UL, _OL, _TABLE, _NAV, _FOOTER, _ASIDE, _DL, _P = tags(
    "article main header ul ol table nav footer aside dl p"
)
FEWEST = 100
"""Characters (blanks aside) that content has at least; with less, the content could not be told."""


def content_lines(page: Page) -> NDArray[np.bool_]:
    """(lines,) whether each line of a page is content."""
    keep = np.zeros(len(page.lines), np.bool_)
    if len(page.lines):
        _choose(page.text, page.lines, page.nodes, keep)
        if page.lines[keep, CHARS].sum() < FEWEST:
            outside = _blocks(page.lines, page.nodes)
            if page.lines[outside, CHARS].sum() > page.lines[keep, CHARS].sum():
                return outside
    return keep


def _blocks(lines: NDArray[np.int32], nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(lines,) the lines outside navigation, footer and forms, for a page whose content cannot be told."""
    outside = np.zeros(len(nodes), np.bool_)
    unwanted = nodes[:, FLAGS] & (m.NAV | m.FOOT | m.SIDE | m.FORM | m.HIDDEN) != 0
    outside[0] = True
    for node in range(1, len(nodes)):
        outside[node] = outside[nodes[node, PARENT]] and not unwanted[node]
    return outside[lines[:, NODE]] & (lines[:, LINKED] < 0.9 * lines[:, CHARS])


@numba.njit(nogil=True, cache=True)
def _sentence_end(text, start, end):  # type: ignore[no-untyped-def]
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
def _weight(text, line, ends, around):  # type: ignore[no-untyped-def]
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
def _sums(lines, nodes, weights, dead, total, linked, chars, count):  # type: ignore[no-untyped-def]
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
def _marked(nodes, total, seen, flag):  # type: ignore[no-untyped-def]
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
def _named_otherwise(flags, tag, share, rest, total, linked, visible):  # type: ignore[no-untyped-def]
    """Whether a block is something else than content, going by its names and its share of the page's weight."""
    if flags & m.HIDDEN and visible >= 250:
        return True
    body = flags & m.BODY or tag in (_ARTICLE, _MAIN)
    if body and share > 0.2:
        return False
    if (tag in (_NAV, _FOOTER, _ASIDE)) and share < 0.5:
        return True
    if flags & m.COMMENT and (rest >= 400 or share < 0.3):
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


@numba.njit(nogil=True, cache=True)
def _root(nodes, total, dead):  # type: ignore[no-untyped-def]
    """The node that holds the content."""
    whole = total[0]
    for mark in (m.BODY, m.ARTICLE):
        best, summed = 0, 0.0
        outer = np.zeros(len(nodes), np.bool_)
        for node in range(1, len(nodes)):
            parent = nodes[node, PARENT]
            outer[node] = outer[parent]
            if dead[node] or not nodes[node, FLAGS] & mark or nodes[node, ELEMENT] == _P or total[node] < 0.02 * whole:
                continue
            if not outer[parent]:
                summed += total[node]
            outer[node] = True
            inner = total[node] >= 0.9 * total[best] and _inside(nodes, node, best)
            if total[node] >= total[best] or best == 0 or inner:
                best = node
        if best and total[best] >= 0.35 * whole and total[best] >= 0.6 * summed:
            return best
        if best and summed >= 0.5 * whole:
            # Several parts of one text, or posts: what holds them all.
            node = best
            while node and total[node] < 0.9 * summed:
                node = nodes[node, PARENT]
            return node
    node = 0
    while True:
        best = 0
        for child in range(node + 1, len(nodes)):
            if nodes[child, PARENT] == node and not dead[child] and (best == 0 or total[child] > total[best]):
                best = child
        if best == 0 or total[best] < 0.75 * total[node]:
            return node
        node = best


@numba.njit(nogil=True, cache=True)
def _inside(nodes, node, other):  # type: ignore[no-untyped-def]
    while node > other:
        node = nodes[node, PARENT]
    return node == other


@numba.njit(nogil=True, cache=True)
def _choose(text, lines, nodes, keep) -> None:  # type: ignore[no-untyped-def]
    n, count = len(lines), len(nodes)
    weights = np.zeros(n)
    ends = np.zeros(n, np.bool_)
    k = 0
    while k < n:
        # Lines that only <br> parts are one paragraph.
        j, around = k, 0.0
        while j < n and (j == k or (lines[j, BREAK] == 1 and lines[j, NODE] == lines[k, NODE])):
            around += lines[j, CHARS] - lines[j, LINKED]
            j += 1
        while k < j:
            ends[k] = _sentence_end(text, lines[k, START], lines[k, END])
            weights[k] = _weight(text, lines[k], ends[k], around)
            k += 1
    total, linked, chars = np.zeros(count), np.zeros(count), np.zeros(count)
    rows = np.zeros(count, np.int64)
    dead = np.zeros(count, np.bool_)
    _sums(lines, nodes, weights, dead, total, linked, chars, rows)
    whole = max(total[0], 1.0)
    rest = whole - _marked(nodes, total, dead, m.COMMENT)
    visible = whole - _marked(nodes, total, dead, m.HIDDEN)
    dead[:] = False
    for node in range(1, count):
        flags = nodes[node, FLAGS]
        dead[node] = dead[nodes[node, PARENT]] or (
            flags != 0
            and _named_otherwise(
                flags, nodes[node, ELEMENT], total[node] / whole, rest, total[node], linked[node], visible
            )
        )
    _sums(lines, nodes, weights, dead, total, linked, chars, rows)
    root = _root(nodes, total, dead)
    inside = np.zeros(count, np.bool_)
    inside[root] = True
    menu = np.zeros(count, np.bool_)
    for node in range(root + 1, count):
        parent = nodes[node, PARENT]
        inside[node] = inside[parent]
        tag = nodes[node, ELEMENT]
        menu[node] = menu[parent] or (
            inside[node]
            and not dead[node]
            and (tag in (_UL, _OL, _TABLE, _DL) or rows[node] >= 3)
            and chars[node] > 0
            and linked[node] > 0.6 * chars[node]
            and total[node] < 0.2 * total[root]
        )
    named = nodes[root, FLAGS] & m.BODY
    first, last = n, -1
    for k in range(n):
        node = lines[k, NODE]
        if not inside[node] or dead[node] or menu[node]:
            continue
        if lines[k, LINKED] > 0.75 * lines[k, CHARS] and lines[k, CHARS] < 150 and lines[k, KIND] != HEADING:
            continue
        keep[k] = True
        if weights[k] > 0 or (ends[k] and lines[k, LINKED] == 0):
            first = min(first, k)
            last = k
    while (
        first > 0
        and first < n
        and keep[first - 1]
        and lines[first - 1, KIND] == HEADING
        and lines[first - 1, LEVEL] >= 1
    ):
        first -= 1
    for k in range(n):
        if keep[k] and (k < first or k > last) and (not named or k > last):
            keep[k] = False
    # A heading with nothing below it.
    below = False
    for k in range(n - 1, -1, -1):
        if keep[k]:
            if lines[k, KIND] == HEADING and not below:
                keep[k] = False
            else:
                below = True
