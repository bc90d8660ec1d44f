"""Open elements: what a start or an end tag opens, closes and ends, and the lines and nodes that come of it."""

import numba

from glassbox.curate.html import markup as m
from glassbox.curate.html.layout import (
    BREAK_NOW,
    CELL_SERIAL,
    DEPTH,
    ELEMENT,
    FIRST,
    FLAGS,
    ITEM_NOW,
    LINE_START,
    LINES,
    LINK,
    LINK_DEPTH,
    LINKS_NOW,
    MAX_DEPTH,
    NODES,
    OUT,
    PARENT,
    PRE,
    PRE_DEPTH,
    ROWS,
    SCOPE,
    SKIP,
    SOFT,
    SPACE,
    STACK_CELL,
    STACK_COUNT,
    STACK_LINE,
    STACK_NODE,
    STACK_ROW,
    STACK_TAG,
    UNSEEN,
    tags,
)
from glassbox.curate.html.lines import end_line, merge_row, record_line
from glassbox.curate.html.text import write_power

_BLOCK, _VOID, _SKIP = m.BLOCK, m.VOID, m.SKIP
_A, _BR, _P, _LI, _UL, _OL, _TR, _TD, _TH, _TABLE, _PRE, _LISTING = tags("a br p li ul ol tr td th table pre listing")
_BODY, _HTML, _DT, _DD, _DL, _SUP, _MATH, _CODE = tags("body html dt dd dl sup math code")
_THEAD, _TBODY, _TFOOT, _H1 = tags("thead tbody tfoot h1")


@numba.njit(nogil=True, cache=True)
def close_top(stack, counts, block, out, lines, state):  # type: ignore[no-untyped-def]
    top = state[DEPTH] - 1
    tag = stack[top, STACK_TAG]
    if state[PRE_DEPTH] == top:
        state[PRE_DEPTH] = -1
        state[SOFT] = 0
        record_line(stack, counts, out, lines, state, PRE)
    elif block:
        end_line(stack, counts, out, lines, state)
        state[BREAK_NOW] = 0
    if tag == _TR and state[PRE_DEPTH] < 0:
        merge_row(top, stack, lines, state)
    if state[SKIP] >= top:
        state[SKIP] = -1
    if state[LINK_DEPTH] >= top:
        state[LINK], state[LINK_DEPTH] = 0, -1
    counts[tag] -= 1
    state[DEPTH] = top


@numba.njit(nogil=True, cache=True)
def end_tag(tag, kind, stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    if tag == _A:
        state[LINK], state[LINK_DEPTH] = 0, -1
        if state[SKIP] == state[DEPTH]:
            state[SKIP] = -1
        return
    if tag == _BR:
        _break(stack, counts, out, lines, state)
        return
    if not tag or not counts[tag] or tag in (_BODY, _HTML):
        if kind & _BLOCK and tag != _BODY and tag != _HTML:
            end_line(stack, counts, out, lines, state)
        return
    block = kind & _BLOCK
    table = tag in (_TR, _TABLE, _TD, _TH) or (tag >= _THEAD and tag <= _TFOOT)
    depth = state[DEPTH] - 1
    for _ in range(MAX_DEPTH):
        if depth < 1:
            return
        other = stack[depth, STACK_TAG]
        if other == tag:
            break
        if not table and (other in (_TD, _TH, _TABLE)):
            return
        if tag != _TABLE and table and other == _TABLE:
            return
        if tag == _LI and (other in (_UL, _OL)):
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
        close_top(stack, counts, block, out, lines, state)


@numba.njit(nogil=True, cache=True)
def _break(stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    if state[PRE_DEPTH] >= 0:
        out[state[OUT]] = 10
        state[OUT] += 1
        return
    before = state[LINES]
    end_line(stack, counts, out, lines, state)
    state[BREAK_NOW] = 1 if state[LINES] > before else min(state[BREAK_NOW] + 1, 2)


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
                close_top(stack, counts, True, out, lines, state)
            return
        if tag in (barrier_a, barrier_b, barrier_c):
            return
        depth -= 1


@numba.njit(nogil=True, cache=True)
def _imply_end(tag, stack, counts, out, lines, state) -> None:  # type: ignore[no-untyped-def]
    """Closes the elements that the start of a block ends: the item before, the cell, the paragraph."""
    if tag == _LI:
        _close(_LI, _LI, _UL, _OL, _TABLE, stack, counts, out, lines, state)
    elif tag in (_DT, _DD):
        _close(min(_DT, _DD), max(_DT, _DD), _DL, _TABLE, _TABLE, stack, counts, out, lines, state)
    elif tag in (_TD, _TH):
        _close(min(_TD, _TH), max(_TD, _TH), _TR, _TABLE, _TABLE, stack, counts, out, lines, state)
    elif tag == _TR:
        _close(_TR, _TR, _TABLE, _TABLE, _TABLE, stack, counts, out, lines, state)
    elif tag >= _THEAD and tag <= _TFOOT:
        _close(_THEAD, _TFOOT, _TABLE, _TABLE, _TABLE, stack, counts, out, lines, state)
    elif counts[_P]:
        _close(_P, _P, _TD, _TABLE, _TH, stack, counts, out, lines, state)


@numba.njit(nogil=True, cache=True)
def _number(tag, parent, entry, state) -> None:  # type: ignore[no-untyped-def]
    """The row, cell or item that an element begins, in its entry of the stack and in the state."""
    if tag == _DD:
        state[BREAK_NOW] = 1
    elif tag == _TABLE:
        entry[STACK_ROW] = entry[STACK_CELL] = -1
    elif tag == _TR:
        state[ROWS] += 1
        entry[STACK_ROW] = state[ROWS]
        entry[STACK_CELL] = -1
    elif tag in (_TD, _TH):
        state[CELL_SERIAL] += 1
        entry[STACK_CELL] = state[CELL_SERIAL]
    elif tag == _LI:
        number = 0
        if parent[STACK_TAG] == _OL:
            parent[STACK_COUNT] += 1
            number = parent[STACK_COUNT]
        state[ITEM_NOW] = number


@numba.njit(nogil=True, cache=True)
def start_tag(tag, kind, flags, following, stack, counts, out, lines, nodes, state):  # type: ignore[no-untyped-def]
    if tag == _A:
        if state[SKIP] < 0:
            state[LINK], state[LINK_DEPTH] = 1, state[DEPTH] - 1
            state[LINKS_NOW] += 1
            if flags & (m.HIDDEN | m.GUTTER):
                # Links stand on no stack: what is skipped ends with the link or with what holds it.
                state[SKIP], state[UNSEEN] = state[DEPTH], 0
        return
    if tag == _BR:
        if state[SKIP] < 0:
            _break(stack, counts, out, lines, state)
        return
    if kind & _VOID:
        return
    if (tag in (_BODY, _HTML)) and counts[tag]:
        return
    block = kind & _BLOCK
    if block:
        _imply_end(tag, stack, counts, out, lines, state)
        if state[SKIP] < 0:
            end_line(stack, counts, out, lines, state)
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
    # A formula's MathML is often hidden beside its picture, and is what is wanted.
    inline_hidden = not block and flags & m.HIDDEN and tag != _MATH
    drawn = flags & m.DRAWN or (flags & m.DRAWN_SPAN and not block)
    gutter = flags & m.GUTTER and tag != _PRE and tag != _CODE and tag != _BODY and tag != _TABLE
    if kind & _SKIP or drawn or gutter or inline_hidden:
        state[SKIP], state[UNSEEN] = depth, inline_hidden != 0
        return
    _number(tag, parent, entry, state)
    if block and state[NODES] < len(nodes) and (tag != _P or flags):
        node = nodes[state[NODES]]
        node[PARENT], node[ELEMENT], node[FIRST] = parent[STACK_NODE], tag, state[LINES]
        node[FLAGS] = flags & m.FORUM if tag in (_BODY, _HTML) else flags
        entry[STACK_NODE] = state[NODES]
        state[NODES] += 1
    if tag == _SUP and state[OUT] > state[LINE_START] and not state[SPACE] and state[PRE_DEPTH] < 0:
        write_power(following, out, state)
    if state[PRE_DEPTH] < 0 and (tag in (_PRE, _LISTING) or (block and flags & m.CODE)):
        state[PRE_DEPTH] = depth
        state[SOFT] = tag != _PRE and tag != _LISTING
