"""Passages that stand in several documents or places (Lee et al., arXiv:2107.06499), without a suffix array.

A passage is a window of L words, the same as another window; what is cut are all windows that stand at an earlier place
too, in the order of priority. So every word that is cut still stands, in its surroundings, at an earlier place.

Two rounds keep the work small. First shorter n-grams are sampled by winnowing (Schleimer, Wilkerson & Aiken 2003): of
any w n-grams in a row the one with the smallest hash; with n = L - w + 1 two equal windows share a sampled n-gram. Only
around those that occur twice all windows are hashed, and equal ones stand next to each other after a sort. No pair is
ever looked at, so a passage that stands in a million documents costs no more than a million that stand in two.

Code between ``` fences is never cut, and no passage runs across a fence.
"""

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.repeats.sorting import Records, sorted_blocks
from glassbox.curate.repeats.texts import Texts, batched
from glassbox.curate.words import in_characters, read_grams, read_words, word_characters
from glassbox.recipe.duplicates import Substrings

WINDOW = 16
"""n-grams in a row of which one is sampled; for passages under 48 words, a third of their words."""
_LOW = np.uint64(32)
_MASK = np.uint64(0xFFFFFFFF)
_BACKTICK, _NEWLINE, _BLANK = 96, 10, 32


def repeated_passages(
    texts: Texts, order: NDArray[np.int64], settings: Substrings, scratch: Path, memory: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(document, start, end) of what is to be cut, in characters of the text, merged and in order.

    `order` are the documents in order of priority; each is read twice at most. Of a passage the earliest place stays
    (document, then place in the document), or none without `keep_one`. A repetition that overlaps the place that stays
    (words repeated over and over) is cut from where that place ends. About `memory` bytes are held.
    """
    memory //= 2  # one sort is read while the next one is filled
    place = np.zeros(int(order.max(initial=-1)) + 1, np.uint64)
    place[order] = np.arange(len(order), dtype=np.uint64)
    window = max(min(WINDOW, settings.words // 3), 1)
    samples = sorted_blocks(_samples(texts, np.sort(order), settings.words, window), scratch, memory)
    found = sorted_blocks((block[:, 1:] for block in _repeated(samples)), scratch, memory)
    windows = sorted_blocks(_windows(texts, found, place, settings.words, window), scratch, memory)
    cuts = _later(windows) if settings.keep_one else _repeated(windows)
    return _merged(sorted_blocks(_spans(cuts, order), scratch, memory))


def _samples(texts: Texts, documents: NDArray[np.int64], size: int, window: int) -> Iterator[Records]:
    """(hash, document and word) of every sampled n-gram."""
    for numbers, batch in batched(texts, documents):
        data, offsets = utf8_buffer(batch)
        yield _sample(data, offsets, word_characters(), numbers, size, window)


def _repeated(blocks: Iterator[Records]) -> Iterator[Records]:
    """Of sorted records those whose first number occurs twice and more."""
    held, held_repeats = np.empty((0, 0), np.uint64), False
    for block in blocks:
        block = np.concatenate([held, block]) if len(held) else block
        equal = block[1:, 0] == block[:-1, 0]
        repeats = np.append(False, equal) | np.append(equal, False)
        repeats[0] |= held_repeats
        yield block[:-1][repeats[:-1]]
        held, held_repeats = block[-1:], bool(repeats[-1])
    if held_repeats:
        yield held


def _windows(
    texts: Texts, found: Iterator[Records], place: NDArray[np.uint64], size: int, window: int
) -> Iterator[Records]:
    """(hash, place and word, first and last character) of every window around the repeated samples."""
    rest = np.empty((0, 1), np.uint64)
    for block in found:
        block = np.concatenate([rest, block])
        # The last document may go on in the next block.
        cut = int(np.searchsorted(block[:, 0] >> _LOW, block[-1, 0] >> _LOW))
        yield from _windows_of(texts, block[:cut, 0], place, size, window)
        rest = block[cut:]
    yield from _windows_of(texts, rest[:, 0], place, size, window)


def _windows_of(
    texts: Texts, found: NDArray[np.uint64], place: NDArray[np.uint64], size: int, window: int
) -> Iterator[Records]:
    documents = (found >> _LOW).astype(np.int64)
    words = (found & _MASK).astype(np.int64)
    for numbers, batch in batched(texts, np.unique(documents)):
        data, offsets = utf8_buffer(batch)
        bounds = np.searchsorted(documents, np.append(numbers, numbers[-1] + 1))
        yield _hash_windows(data, offsets, word_characters(), place[numbers], words, bounds, size, window)


def _later(blocks: Iterator[Records]) -> Iterator[Records]:
    """Of sorted windows all but the earliest of its kind; one that overlaps it begins where it ends."""
    head = np.empty((0, 3), np.uint64)
    for block in blocks:
        block = np.concatenate([head, block])
        begins = np.append(True, block[1:, 0] != block[:-1, 0])
        first = block[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        later = block[~begins].copy()
        first = first[~begins]
        same = first[:, 1] >> _LOW == later[:, 1] >> _LOW
        end = first[:, 2] & _MASK
        overlap = same & (end > later[:, 2] >> _LOW)
        later[overlap, 2] = end[overlap] << _LOW | later[overlap, 2] & _MASK
        yield later
        head = block[np.flatnonzero(begins)[-1]][None]


def _spans(cuts: Iterator[Records], order: NDArray[np.int64]) -> Iterator[Records]:
    """(document, first and last character) of each cut."""
    for block in cuts:
        documents = order[(block[:, 1] >> _LOW).astype(np.int64)].astype(np.uint64)
        yield np.column_stack([documents, block[:, 2]])


def _merged(blocks: Iterator[Records]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    found = [np.empty((0, 3), np.int64)]
    for block in blocks:
        rows = np.column_stack([block[:, 0], block[:, 1] >> _LOW, block[:, 1] & _MASK]).astype(np.int64)
        rows = np.concatenate([found.pop(), rows]) if len(found) > 1 else rows
        merged = _merge(rows)
        # The last one may grow.
        found += [merged[:-1], merged[-1:]]
    rows = np.concatenate(found)
    return rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].copy()


@numba.njit(nogil=True, cache=True)
def _merge(rows):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(rows)):
        if count and rows[i, 0] == rows[count - 1, 0] and rows[i, 1] <= rows[count - 1, 2]:
            rows[count - 1, 2] = max(rows[count - 1, 2], rows[i, 2])
        else:
            rows[count] = rows[i]
            count += 1
    return rows[:count].copy()


@numba.njit(nogil=True, cache=True)
def fence(data, i, end):  # type: ignore[no-untyped-def]
    """Where the next fenced block begins and ends in `data[i:end]`, which begins a line; (end, end) if there is none.

    As in CommonMark: a fence is a line that begins, after at most three blanks, with three or more backticks; it is
    closed by a line of as many, or by the end of the text.
    """
    begin, ticks_before = end, 0
    while i < end:
        line = i
        while i < end and i < line + 3 and data[i] == _BLANK:
            i += 1
        first = i
        while i < end and data[i] == _BACKTICK:
            i += 1
        ticks = i - first
        plain = True
        while i < end and data[i] != _NEWLINE:
            plain &= data[i] <= _BLANK
            i += 1
        i = min(i + 1, end)
        if begin == end and ticks >= 3:
            begin, ticks_before = line, ticks
        elif begin < end and ticks >= ticks_before and plain:
            return begin, i
    return begin, end


@numba.njit(nogil=True, cache=True)
def _sample(data, offsets, characters, numbers, size, window):  # type: ignore[no-untyped-def]
    most = (offsets[-1] - offsets[0]) // 2 + len(offsets)
    out = np.empty((most, 2), np.uint64)
    words, grams = np.empty(most, np.uint64), np.empty(most, np.uint64)
    queue = np.empty(most, np.int64)
    count = 0
    for d in range(len(numbers)):
        i, before = offsets[d], 0
        while i < offsets[d + 1]:
            begin, after = fence(data, i, offsets[d + 1])
            n = read_words(data, i, begin, characters, words, None, None)
            if n >= size:
                n_grams = read_grams(words[:n], size - window + 1, grams)
                # Grams that may yet be the smallest of a window, ascending; of equal ones the last.
                head = tail = 0
                last = -1
                for k in range(n_grams):
                    while tail > head and grams[queue[tail - 1]] >= grams[k]:
                        tail -= 1
                    queue[tail] = k
                    tail += 1
                    if queue[head] <= k - window:
                        head += 1
                    if k >= window - 1 and queue[head] != last:
                        last = queue[head]
                        out[count, 0] = grams[last]
                        out[count, 1] = np.uint64(numbers[d]) << _LOW | np.uint64(before + last)
                        count += 1
            before += n
            i = after
    return out[:count]


@numba.njit(nogil=True, cache=True)
def _hash_windows(data, offsets, characters, place, found, bounds, size, window):  # type: ignore[no-untyped-def]
    """All windows that hold a sampled n-gram, whose words are `found[bounds[d]:bounds[d + 1]]` in document d."""
    most = (offsets[-1] - offsets[0]) // 2 + len(offsets)
    out = np.empty((most, 3), np.uint64)
    words, grams = np.empty(most, np.uint64), np.empty(most, np.uint64)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for d in range(len(place)):
        i, before = offsets[d], 0
        at = bounds[d]
        byte, character = offsets[d], 0
        while i < offsets[d + 1] and at < bounds[d + 1]:
            begin, after = fence(data, i, offsets[d + 1])
            n = read_words(data, i, begin, characters, words, starts, ends)
            n_grams = read_grams(words[:n], size, grams) if n >= size else 0
            byte, character = in_characters(data, byte, character, starts[:n], ends[:n])
            following = 0
            while at < bounds[d + 1] and found[at] < before + n:
                sample = found[at] - before
                for k in range(max(following, sample - window + 1), min(sample + 1, n_grams)):
                    out[count, 0] = grams[k]
                    out[count, 1] = place[d] << _LOW | np.uint64(before + k)
                    out[count, 2] = np.uint64(starts[k]) << _LOW | np.uint64(ends[k + size - 1])
                    count += 1
                following = max(following, sample + 1)
                at += 1
            before += n
            i = after
    return out[:count]
