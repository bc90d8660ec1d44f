"""The main text of a web page: paragraphs, headings, lists, tables, code and formulas as lines of text.

Items get bullets or numbers and are indented by level, cells of a row are parted by bars, code stands between fences as
it was, formulas between dollars; a blank line parts everything else.
"""

import re

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.html.content import content_lines
from glassbox.curate.html.kernel import Page, parse
from glassbox.curate.html.layout import BREAK, CELLS, END, ITEM, KIND, LEVEL, PRE, START
from glassbox.curate.html.mathml import with_formulas

FORMULA = re.compile("<math", re.IGNORECASE)
OVERHEAD = 48
"""Most bytes that marks, indent and blank lines add to a line."""


def page_text(html: str) -> str:
    """The main content of a web page as lines of text, blank lines between paragraphs."""
    if FORMULA.search(html):
        html = with_formulas(html)
    page = parse(html.encode("utf-8", "replace"))
    return lines_text(page, content_lines(page))


def all_text(html: str) -> str:
    """The text of a whole page, content or not, in the form of `page_text`."""
    page = parse(with_formulas(html).encode("utf-8", "replace"))
    return lines_text(page, np.ones(len(page.lines), np.bool_))


def lines_text(page: Page, keep: NDArray[np.bool_]) -> str:
    """The lines of a page that are kept, (lines,) of them, as text."""
    size = int((page.lines[keep, END] - page.lines[keep, START]).sum()) + OVERHEAD * int(keep.sum())
    out = np.empty(size + 1, np.uint8)
    length = _write(page.text, page.lines, keep, out)
    return out[:length].tobytes().decode("utf-8", "replace")


@numba.njit(nogil=True, cache=True)
def _write(text, lines, keep, out):  # type: ignore[no-untyped-def]
    o, before = 0, -1
    for k in range(len(lines)):
        if not keep[k]:
            continue
        kind, start, end = lines[k, KIND], lines[k, START], lines[k, END]
        if before >= 0:
            close = before == k - 1 and (
                lines[k, BREAK] == 1
                or (kind == ITEM and lines[before, KIND] == ITEM)
                or (kind == CELLS and lines[before, KIND] == CELLS)
            )
            for _ in range(1 if close else 2):
                out[o] = 10
                o += 1
        before = k
        if kind == ITEM:
            o = _mark(lines[k, LEVEL], out, o)
        fence = 0
        if kind == PRE:
            fence = _fence(text, start, end)
            for _ in range(fence):
                out[o] = 96
                o += 1
            out[o] = 10
            o += 1
        for i in range(start, end):
            out[o] = text[i]
            o += 1
        if kind == PRE:
            out[o] = 10
            o += 1
            for _ in range(fence):
                out[o] = 96
                o += 1
    return o


@numba.njit(nogil=True, cache=True)
def _mark(level, out, o):  # type: ignore[no-untyped-def]
    """The indent and the bullet or number of a list item."""
    for _ in range(2 * (level % 100 - 1)):
        out[o] = 32
        o += 1
    number = level // 100
    if number == 0:
        out[o], out[o + 1], out[o + 2], out[o + 3] = 0xE2, 0x80, 0xA2, 32  # •
        return o + 4
    power = 1
    while power * 10 <= number:
        power *= 10
    while power:
        out[o] = 48 + number // power % 10
        o += 1
        power //= 10
    out[o], out[o + 1] = 46, 32
    return o + 2


@numba.njit(nogil=True, cache=True)
def _fence(text, start, end):  # type: ignore[no-untyped-def]
    """How many backticks fence a block: more than any run in it, at most eight."""
    longest = run = 0
    for i in range(start, end):
        run = run + 1 if text[i] == 96 else 0
        longest = max(longest, run)
    return max(3, min(longest + 1, 8))
