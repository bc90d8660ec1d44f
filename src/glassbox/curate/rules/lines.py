"""Line rules: clutter that is cut out of documents while the rest of them stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import (
    ALPHANUMERIC,
    SPACE,
    character_tables,
    decode,
    longest,
    unit_end,
    utf8_buffer,
    word_key,
)
from glassbox.curate.edits import Cut, Edited
from glassbox.curate.rules.line_kernel import cut_kernel, line_bounds
from glassbox.recipe.rules import LINE_RULES

EDGE_RULE = "edge_lines"
REFINEDWEB_LINES = ("upper_case", "digits", "counter", "one_word", "cart", "read_more", "sign_in")
"""The line rules whose cuts the document rule of RefinedWeb counts."""


def cut_lines(texts: pa.Array, rules: tuple[str, ...]) -> Edited:
    """Cut the lines, or the parts of lines, that `rules` (of `recipe.rules.LINE_RULES`) condemn.

    The rules are asked in the order given, except that `repeated` comes first; the first that cuts a whole line is
    recorded. Blank lines stay.
    """
    data, offsets = utf8_buffer(texts)
    codes = np.array([LINE_RULES.index(rule) for rule in rules if rule != "repeated"], np.int64)
    rows = cut_kernel(data, offsets, *character_tables(), codes, "repeated" in rules)
    return _apply(texts, rows, LINE_RULES)


def words_cut(texts: pa.Array, cuts: list[list[Cut]], rules: tuple[str, ...] = REFINEDWEB_LINES) -> NDArray[np.float32]:
    """(documents,) share of a document's words that stood in what `rules` cut, of those before any of these cuts.

    texts: the documents afterwards. After arXiv:2306.01116, appendix G.2.
    """
    removed = pa.array(["\n".join(cut.text for cut in one if cut.rule in rules) for one in cuts], pa.large_string())
    gone, left = count_words(removed), count_words(texts)
    return (gone / np.maximum(gone + left, 1)).astype(np.float32)


def count_words(texts: pa.Array) -> NDArray[np.int64]:
    """(documents,) words as the kernels split them (`characters.unit_end`)."""
    return _count_words(*utf8_buffer(texts), character_tables()[0])


def edge_hashes(texts: pa.Array, width: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """64-bit hashes of the lines at both ends of each document, in order of place, and bounds (documents + 1,).

    Of the lines that hold a letter or a digit, the first and the last `width`; each place once, so that of a short
    document no line counts twice, but a line that stands at both ends does (arXiv:2506.05767, app. C.2).
    """
    hashes, bounds, _ = _edge_lines(*utf8_buffer(texts), character_tables()[0], width)
    return hashes, bounds


def cut_edges(texts: pa.Array, width: int, allowed: dict[int, int]) -> Edited:
    """Cut edge lines that were met often enough.

    allowed: hash of a line -> how many further places may keep it. It is counted down, in document order, so that the
    next batch goes on where this one ended. Lines whose hash is not in it stay.
    """
    hashes, bounds, places = _edge_lines(*utf8_buffer(texts), character_tables()[0], width)
    cut = np.zeros(len(hashes), np.bool_)
    for i, key in enumerate(hashes.tolist()):
        left = allowed.get(key)
        if left is not None:
            cut[i] = left <= 0
            allowed[key] = left - 1 if left > 0 else 0
    documents = np.repeat(np.arange(len(texts)), np.diff(bounds))
    rows = np.zeros((int(cut.sum()), 6), np.int64)
    rows[:, 0], rows[:, 1:4], rows[:, 4] = documents[cut], places[cut], -1
    return _apply(texts, rows, (EDGE_RULE,))


def _apply(texts: pa.Array, rows: NDArray[np.int64], names: tuple[str, ...]) -> Edited:
    """Make the cuts that a kernel found: rows of document, start, end, line, start of that line (-1: whole), rule."""
    cuts: list[list[Cut]] = [[] for _ in range(len(texts))]
    if not len(rows):
        return texts, cuts
    with _no_collection():
        return _apply_rows(texts, rows, names, cuts)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's search for reference cycles off: none are made here, and it would double the time of many cuts."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _apply_rows(texts: pa.Array, rows: NDArray[np.int64], names: tuple[str, ...], cuts: list[list[Cut]]) -> Edited:
    out = texts.to_pylist()
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]
    # A later rule's cut may lie around an earlier one's: "items [1] in cart".
    ends_at = (rows[:, 0] << 40) + rows[:, 2]
    inside = (ends_at[1:] <= np.maximum.accumulate(ends_at[:-1])) & (rows[1:, 4] >= 0)
    rows = np.delete(rows, np.flatnonzero(inside) + 1, 0)
    documents, firsts = np.unique(rows[:, 0], return_index=True)
    whole = rows[:, 4] < 0
    columns = np.where(whole, -1, rows[:, 1] - rows[:, 4])
    rules = [names[rule] for rule in rows[:, 5].tolist()]
    starts, ends, lines, pasts = (one.tolist() for one in (*rows[:, 1:4].T, rows[:, 2] + whole))
    for d, first, last in zip(documents.tolist(), firsts.tolist(), [*firsts[1:].tolist(), len(rows)], strict=True):
        text = out[d]
        removed = [text[start:end] for start, end in zip(starts[first:last], ends[first:last], strict=True)]
        places = zip(lines[first:last], columns[first:last].tolist(), rules[first:last], removed, strict=True)
        cuts[d] = list(map(Cut._make, places))
        between = zip([0, *pasts[first:last]], [*starts[first:last], len(text)], strict=True)
        left = "".join([text[start:end] for start, end in between])
        # Where the last line went, so does the newline that ended the line before it.
        out[d] = left.removesuffix("\n") if pasts[last - 1] > len(text) else left
    return pa.array(out, pa.large_string()), cuts


@numba.njit(nogil=True, cache=True)
def _count_words(data, offsets, kinds):  # type: ignore[no-untyped-def]
    p = np.empty(longest(offsets), np.int32)
    out = np.zeros(len(offsets) - 1, np.int64)
    for d in range(len(out)):
        n, i = decode(data, offsets[d], offsets[d + 1], p), 0
        while i < n:
            if kinds[p[i]] & SPACE:
                i += 1
                continue
            out[d] += 1
            i = unit_end(p, i, n, kinds)
    return out


@numba.njit(nogil=True, cache=True)
def _edge_lines(data, offsets, kinds, width):  # type: ignore[no-untyped-def]
    """Hashes, bounds, and places (start, end, number among the lines that are not blank) of the edge lines."""
    documents = len(offsets) - 1
    p = np.empty(longest(offsets), np.int32)
    hashes, places = np.empty(2 * width * documents, np.uint64), np.empty((2 * width * documents, 3), np.int64)
    bounds = np.zeros(documents + 1, np.int64)
    tail_hashes, tail = np.empty(width, np.uint64), np.empty((width, 3), np.int64)
    count = 0
    for d in range(documents):
        n = decode(data, offsets[d], offsets[d + 1], p)
        found = line = at = 0
        while at <= n:
            end, first, last = line_bounds(p, at, n, kinds)
            filled = False
            for i in range(first, last):
                if kinds[p[i]] & ALPHANUMERIC:
                    filled = True
                    break
            if filled and found < width:
                hashes[count], places[count] = word_key(p, first, last), np.array([at, end, line])
                count += 1
            elif filled:
                slot = found % width
                tail_hashes[slot], tail[slot] = word_key(p, first, last), np.array([at, end, line])
            found += filled
            line += first < last
            at = end + 1
        for k in range(max(found - width, width), found):
            hashes[count], places[count] = tail_hashes[k % width], tail[k % width]
            count += 1
        bounds[d + 1] = count
    return hashes[:count], bounds, places[:count]
