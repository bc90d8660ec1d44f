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

from glassbox.curate.html import markup as m
from glassbox.curate.html.content_weights import marked, named_otherwise, sentence_end, sums, weight
from glassbox.curate.html.kernel import Page
from glassbox.curate.html.layout import (
    BREAK,
    CHARS,
    ELEMENT,
    END,
    FLAGS,
    HEADING,
    KIND,
    LEVEL,
    LINKED,
    NODE,
    PARENT,
    START,
    tags,
)

_UL, _OL, _TABLE, _DL, _P = tags("ul ol table dl p")
DEEPER = 0.9
"""Share of a block's weight that a block inside it holds, where that one is the content."""
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
def _root(nodes, total, dead, forum):  # type: ignore[no-untyped-def]
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
        if best and total[best] >= 0.35 * whole and total[best] >= (0.95 if forum else 0.6) * summed:
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
        if best == 0 or total[best] < DEEPER * total[node]:
            return node
        node = best


@numba.njit(nogil=True, cache=True)
def _inside(nodes, node, other):  # type: ignore[no-untyped-def]
    while node > other:
        node = nodes[node, PARENT]
    return node == other


@numba.njit(nogil=True, cache=True)
def _choose(text, lines, nodes, keep) -> None:  # type: ignore[no-untyped-def]
    weights, ends, links = _paragraphs(text, lines)
    count = len(nodes)
    tallies = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    total, linked, chars, rows = tallies
    dead = np.zeros(count, np.bool_)
    sums(lines, nodes, weights, dead, total, linked, chars, rows)
    forum = _mark_dead(nodes, total, linked, dead)
    sums(lines, nodes, weights, dead, total, linked, chars, rows)
    root = _root(nodes, total, dead, forum)
    outside = _outside(nodes, root, dead, tallies)
    first, last = len(lines), -1
    for k in range(len(lines)):
        if outside[lines[k, NODE]]:
            continue
        link = lines[k, LINKED] > 0.75 * lines[k, CHARS] and lines[k, CHARS] < 150
        if link and links[k] and lines[k, KIND] != HEADING:
            continue
        keep[k] = True
        if weights[k] > 0 or (ends[k] and lines[k, LINKED] == 0):
            first = min(first, k)
            last = k
    _trim(lines, first, last, nodes[root, FLAGS] & m.BODY, keep)


@numba.njit(nogil=True, cache=True)
def _paragraphs(text, lines):  # type: ignore[no-untyped-def]
    """(lines,) what each line weighs, whether it ends a sentence, and whether its paragraph is nearly all links."""
    n = len(lines)
    weights, ends, links = np.zeros(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    k = 0
    while k < n:
        # Lines that only <br> parts are one paragraph: a line of it that is a link is none of a list of links.
        j, around, letters = k, 0.0, 0
        while j < n and (j == k or (lines[j, BREAK] == 1 and lines[j, NODE] == lines[k, NODE])):
            around += lines[j, CHARS] - lines[j, LINKED]
            letters += lines[j, CHARS]
            j += 1
        while k < j:
            links[k] = around < 0.25 * letters
            ends[k] = sentence_end(text, lines[k, START], lines[k, END])
            weights[k] = weight(text, lines[k], ends[k], around)
            k += 1
    return weights, ends, links


@numba.njit(nogil=True, cache=True)
def _mark_dead(nodes, total, linked, dead) -> bool:  # type: ignore[no-untyped-def]
    """Marks the nodes whose names say that they are something else; whether the page is a forum's."""
    whole = max(total[0], 1.0)
    rest = whole - marked(nodes, total, dead, m.COMMENT)
    forum = False
    for node in range(1, len(nodes)):
        forum = forum or (nodes[node, FLAGS] & m.FORUM != 0 and total[node] >= 0.5 * whole)
    visible = whole - marked(nodes, total, dead, m.HIDDEN)
    dead[:] = False
    for node in range(1, len(nodes)):
        flags, tag = nodes[node, FLAGS], nodes[node, ELEMENT]
        share = total[node] / whole
        dead[node] = dead[nodes[node, PARENT]] or (
            flags != 0 and named_otherwise(flags, tag, share, rest, total[node], linked[node], visible, forum)
        )
    return forum


@numba.njit(nogil=True, cache=True)
def _outside(nodes, root, dead, tallies):  # type: ignore[no-untyped-def]
    """(nodes,) what is no part of the content below `root`: dead nodes, and lists that are nearly all links."""
    total, linked, chars, rows = tallies
    inside, menu = np.zeros(len(nodes), np.bool_), np.zeros(len(nodes), np.bool_)
    inside[root] = True
    for node in range(root + 1, len(nodes)):
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
    return ~inside | dead | menu


@numba.njit(nogil=True, cache=True)
def _trim(lines, first, last, named, keep) -> None:  # type: ignore[no-untyped-def]
    """Lets go of what stands before the first and after the last paragraph, and of headings with nothing below.

    Headings right above the first paragraph stay; where the content was `named` so does all that stands above it.
    """
    n = len(lines)
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
    below = False
    for k in range(n - 1, -1, -1):
        if keep[k]:
            if lines[k, KIND] == HEADING and not below:
                keep[k] = False
            else:
                below = True
