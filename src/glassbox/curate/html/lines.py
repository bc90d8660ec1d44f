"""Lines of a page: the line at hand ends, cells of a table row become one."""

import numba

from glassbox.curate.html.layout import (
    BREAK,
    BREAK_NOW,
    CELL,
    CELLS,
    CHARS,
    CHARS_NOW,
    DEPTH,
    END,
    HEADING,
    ITEM,
    ITEM_NOW,
    KIND,
    LEVEL,
    LINE_START,
    LINES,
    LINKED,
    LINKED_NOW,
    LINKS,
    LINKS_NOW,
    NODE,
    OUT,
    PLAIN,
    PRE,
    PRE_DEPTH,
    ROW,
    SPACE,
    STACK_CELL,
    STACK_LINE,
    STACK_NODE,
    STACK_ROW,
    START,
    tags,
)

_UL, _OL, _H1, _P = tags("ul ol h1 p")


@numba.njit(nogil=True, cache=True)
def end_line(stack, counts, out, lines, state):  # type: ignore[no-untyped-def]
    """Ends the line at hand, if there is anything in it."""
    if state[PRE_DEPTH] >= 0:
        o = state[OUT]
        if o > state[LINE_START] and out[o - 1] != 10:
            out[o] = 10
            state[OUT] += 1
        return
    record_line(stack, counts, out, lines, state, PLAIN)


@numba.njit(nogil=True, cache=True)
def record_line(stack, counts, out, lines, state, kind):  # type: ignore[no-untyped-def]
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
def merge_row(depth, stack, lines, state):  # type: ignore[no-untyped-def]
    """Makes the cells of a table row one line, if each is one short line."""
    first, last = stack[depth, STACK_LINE], state[LINES]
    row = stack[depth, STACK_ROW]
    if last - first == 1 and first and lines[first - 1, KIND] == CELLS and lines[first - 1, ROW] == row - 1:
        # The row's other cells are empty.
        if lines[first, KIND] == PLAIN:
            lines[first, KIND], lines[first, LEVEL] = CELLS, 0
        return
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
