"""A web page to lines of text with their place in the tree: one pass of a kernel over the bytes, without recursion.

The tree is not built: a stack of open elements (depth-limited) closes what HTML leaves open (paragraphs, items, cells),
and every block element, and every other that a class name says something about, leaves a node with its parent, tag and
flags. Time and memory are linear in the bytes of the page whatever is in it.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.html import markup as m
from glassbox.curate.html.attributes import after_comment, after_raw, find_byte, name_at, read_attributes
from glassbox.curate.html.layout import (
    ALT,
    ALT_END,
    CLOSED,
    DEPTH,
    ELEMENT,
    FIRST,
    FLAG,
    FLAGS,
    ITEM_NOW,
    LINES,
    LINK_DEPTH,
    MATHS_NOW,
    MAX_DEPTH,
    MAX_LINES,
    MAX_NODES,
    NODES,
    OUT,
    PARENT,
    PRE_DEPTH,
    SKIP,
    STACK_CELL,
    STACK_ROW,
    STATE,
    TEX,
    UNSEEN,
    tags,
)
from glassbox.curate.html.markup import look_up, markup
from glassbox.curate.html.text import read_formula, read_image, read_text
from glassbox.curate.html.tree import close_top, end_line, end_tag, start_tag

_RAW, _SKIP = m.RAW, m.SKIP
_IMG, _SCRIPT = tags("img script")


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
    state = np.zeros(STATE, np.int64)
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
            i = read_text(data, i, out, state, reference_keys, reference_values)
            continue
        c = data[i + 1]
        letter = (c | 32) >= 97 and (c | 32) <= 122
        if c == 33:
            i = after_comment(data, i)
            continue
        if c == 63:
            i = find_byte(data, i, 62) + 1
            continue
        if c == 47 and i + 2 < n and (data[i + 2] | 32) >= 97 and (data[i + 2] | 32) <= 122:
            key, k = name_at(data, i + 2)
            tag = look_up(tag_keys, tag_values, key)
            k = find_byte(data, k, 62) + 1
            end_tag(tag, kinds[tag], stack, counts, out, lines, state)
            i = k
            continue
        if not letter:
            i = read_text(data, i, out, state, reference_keys, reference_values)
            continue
        key, k = name_at(data, i + 1)
        tag = look_up(tag_keys, tag_values, key)
        found[:] = 0
        i = read_attributes(
            data, k, found, attribute_keys, attribute_values, word_keys, word_values, role_keys, role_values
        )
        kind = kinds[tag]
        if tag == _SCRIPT and found[TEX] and (state[SKIP] < 0 or (found[TEX] >= 4 and state[UNSEEN])):
            i = read_formula(data, i, found[TEX] & 3, out, state)
            continue
        if kind & _RAW:
            i = after_raw(data, i, key)
            continue
        if tag == 0 or (found[CLOSED] and kind & _SKIP):
            continue
        following = data[i] if i < n else np.uint8(0)
        start_tag(tag, kind, own_flags[tag] | found[FLAG], following, stack, counts, out, lines, nodes, state)
        if (
            tag == _IMG
            and found[FLAG] & m.MATH
            and found[ALT_END] > found[ALT]
            and state[SKIP] < 0
            and not state[MATHS_NOW]
        ):
            read_image(data, found, out, state, reference_keys, reference_values)
    while state[DEPTH] > 1:
        close_top(stack, counts, True, out, lines, state)
    end_line(stack, counts, out, lines, state)
