"""Decontamination: documents that hold word n-grams of evaluation problems.

After GPT-3 (arXiv:2005.14165, app. C): any 13-gram in common is a hit; and Tülu 3 (arXiv:2411.15124, 3.2): a document
that covers more than half of a problem's words by common 8-grams is one. Every document is held against all problems at
once: no index is asked that returns a limited number of matches. Each text of a problem (question, solution) is looked
for on its own. A text of fewer words than an n-gram is looked for whole if it has at least eight; a shorter one is
counted instead.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import mix, utf8_buffer
from glassbox.curate.repeats.evaluations import Evaluations, GramTable, SetFacts, read_evaluations
from glassbox.curate.words import BASE, in_characters, read_words, word_characters, word_hashes
from glassbox.recipe.duplicates import Decontaminate

__all__ = ["Evaluations", "Hit", "SetFacts", "evaluations", "hits", "stretches"]

SHORTEST_PIECE = 200
"""Characters; a shorter piece between two cuts goes too (GPT-3)."""
MOST_PIECES = 10
"""A document that cuts would split into more pieces goes (GPT-3)."""


class Hit(NamedTuple):
    """A stretch of a document that stands in an evaluation problem."""

    set: str
    item: str
    share: float
    """Share of the words of the problem's text that lie in n-grams the document holds, anywhere in it."""
    start: int
    """Where the stretch begins in the document, in characters."""
    end: int


def evaluations(settings: Decontaminate, problems: Path | None) -> Evaluations:
    """The n-grams to look for: the recipe's sets, and the held-out problems in the folder of a problems stage."""
    return read_evaluations(settings, problems)


def hits(texts: pa.Array, known: Evaluations) -> list[list[Hit]]:
    """(documents,) large_string -> for each document its matches with problems of which it holds more than
    `Decontaminate.share`, problem by problem, in order of place."""
    data, offsets = utf8_buffer(texts)
    found: list[list[Hit]] = [[] for _ in range(len(texts))]
    if not known.tables:
        return found
    words, bounds = word_hashes(texts)
    may_begin = _sift(words, bounds, *known.sieve)
    matches = []
    for table in known.tables:
        places, grams = _probe(words, bounds, may_begin, table.length, table.hashes)
        if len(places):
            matches += _covered(places, grams, bounds, table, known)
    for document, of_document in itertools.groupby(sorted(matches), key=lambda match: match[0]):
        starts, ends = _places(data[offsets[document] : offsets[document + 1]])
        for _, text, first, last, share in of_document:
            stretch = int(starts[first - bounds[document]]), int(ends[last - bounds[document]])
            found[document].append(Hit(*known.names[text], share, *stretch))
    return found


def stretches(length: int, matches: Sequence[tuple[int, int]], around: int) -> list[tuple[int, int]] | None:
    """What to cut out of a document of `length` characters: the matches [start, end) with `around` characters on either
    side, and pieces of fewer than 200 characters left between them. None if the document is to go: it would be split
    into more than ten pieces, or nothing is left."""
    cuts: list[tuple[int, int]] = []
    pieces = 0
    at = 0
    for start, end in [
        *sorted((max(start - around, 0), min(end + around, length)) for start, end in matches),
        (length, length),
    ]:
        if start - at >= SHORTEST_PIECE:
            pieces += 1
        else:
            start = min(start, at)
        if cuts and start <= cuts[-1][1]:
            cuts[-1] = (cuts[-1][0], max(cuts[-1][1], end))
        elif end > start:
            cuts.append((start, end))
        at = max(at, end)
    return cuts if 0 < pieces <= MOST_PIECES else None


def _places(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each word of a text begins and ends, in characters."""
    most = len(data) // 2 + 1
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count = read_words(data, 0, len(data), word_characters(), np.empty(most, np.uint64), starts, ends)
    in_characters(data, 0, 0, starts[:count], ends[:count])
    return starts[:count], ends[:count]


def _covered(
    places: NDArray[np.int64],
    grams: NDArray[np.int64],
    bounds: NDArray[np.int64],
    table: GramTable,
    known: Evaluations,
) -> list[tuple[int, int, int, int, float]]:
    """(document, text, first and last word of the batch, share) of every match, where the share is high enough."""
    counts = table.starts[grams + 1] - table.starts[grams]
    rows = np.repeat(table.starts[grams] - np.append(0, np.cumsum(counts)[:-1]), counts) + np.arange(counts.sum())
    texts, words, at = table.texts[rows], table.words[rows], np.repeat(places, counts)
    documents = np.searchsorted(bounds, at, "right") - 1
    order = np.lexsort((words, texts, documents))
    group = np.append(0, np.cumsum((np.diff(documents[order]) != 0) | (np.diff(texts[order]) != 0)))
    # Words that n-grams beginning at these words cover: each adds as many as lie beyond the one before.
    step = np.append(table.length, np.minimum(np.diff(words[order]), table.length))
    step[np.append(0, np.flatnonzero(np.diff(group)) + 1)] = table.length
    heads = order[np.flatnonzero(np.diff(group, prepend=-1))]
    share = np.bincount(group, step) / known.lengths[texts[heads]]
    found = []
    order = np.lexsort((at, texts, documents))
    edges = np.flatnonzero(np.diff(group, prepend=-1, append=len(heads)))
    for k in np.flatnonzero(share > known.share):
        mine = at[order[edges[k] : edges[k + 1]]]
        # Where the next n-gram begins beyond the end of the one before, a new stretch begins.
        breaks = np.flatnonzero(np.diff(mine) > table.length) + 1
        for stretch in np.split(mine, breaks):
            last = int(stretch[-1]) + table.length - 1
            found.append((int(documents[heads[k]]), int(texts[heads[k]]), int(stretch[0]), last, float(share[k])))
    return found


@numba.njit(nogil=True, cache=True)
def _find(hashes, value) -> int:  # type: ignore[no-untyped-def]
    low, high = 0, len(hashes)
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < len(hashes) and hashes[low] == value else -1


@numba.njit(nogil=True, cache=True)
def _sift(words, bounds, length, seen, shift):  # type: ignore[no-untyped-def]
    """Words at which an n-gram begins that passes the sieve."""
    power = np.uint64(1)
    for _ in range(length):
        power *= BASE
    extra = np.uint64(length) * power
    out = np.empty(len(words), np.int64)
    count = 0
    for d in range(len(bounds) - 1):
        value = np.uint64(0)
        for i in range(bounds[d], bounds[d + 1]):
            value = value * BASE + words[i]
            first = i - length + 1
            if first < bounds[d]:
                continue
            if first > bounds[d]:
                value -= words[first - 1] * power
            bit = mix(value + extra) >> np.uint64(shift)
            out[count] = first
            count += seen[bit >> np.uint64(3)] >> (bit & np.uint64(7)) & 1
    return out[:count].copy()


@numba.njit(nogil=True, cache=True)
def _probe(words, bounds, may_begin, length, hashes):  # type: ignore[no-untyped-def]
    """Of these words those at which an n-gram of the table begins, and its number in the table."""
    places, grams = np.empty(len(may_begin), np.int64), np.empty(len(may_begin), np.int64)
    count, d = 0, 0
    for first in may_begin:
        while bounds[d + 1] <= first:
            d += 1
        if first + length > bounds[d + 1]:
            continue
        value = np.uint64(length)
        for i in range(first, first + length):
            value = value * BASE + words[i]
        number = _find(hashes, mix(value))
        if number >= 0:
            places[count], grams[count] = first, number
            count += 1
    return places[:count], grams[:count]
