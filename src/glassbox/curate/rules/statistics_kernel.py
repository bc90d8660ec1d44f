"""The kernel behind `statistics`: one pass over a batch, one row of numbers for each document."""

import numba
import numpy as np

from glassbox.curate.characters import ALPHANUMERIC, DIGIT, IDEOGRAPH, LETTER, decode, longest, mix
from glassbox.curate.rules.line_kernel import most_lines
from glassbox.curate.rules.line_statistics import (
    LINE_COLUMNS,
    measure_lines,
    measure_paragraphs,
    measure_raw_paragraphs,
)
from glassbox.curate.rules.repetition import (
    COVERED,
    EVERY,
    SUMMED,
    TOP_COUNT,
    TOP_FIRST,
    TOP_LONGEST,
    WALKED,
    longest_run,
    measure_grams,
    table_size,
)
from glassbox.curate.rules.word_statistics import LONGEST_COUNTED, WORD_COLUMNS, measure_words, share

_GRAMS = (*(f"top_{n}_gram" for n in (2, 3, 4)), *(f"duplicate_{n}_grams" for n in (5, 6, 7, 8, 9, 10)))
REPETITION_COLUMNS = ("top_word", "top_two_words", "repeated_words", "repeated_characters", *_GRAMS)
DOLMA_COLUMNS = tuple(
    f"dolma_{name}"
    for name in ("bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters", *_GRAMS)
)
DCLM_COLUMNS = tuple(
    f"dclm_{name}"
    for name in (
        *("words", "bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters"),
        *("duplicate_paragraphs", "duplicate_paragraph_characters", *_GRAMS),
    )
)
VARIANT_COLUMNS = (*WORD_COLUMNS[14:], *DOLMA_COLUMNS, *DCLM_COLUMNS)
"""Columns of the readings of DCLM and Dolma."""
RUN_COLUMNS = ("repeated_words", "repeated_characters")
KERNEL_COLUMNS = (*WORD_COLUMNS, *LINE_COLUMNS, *REPETITION_COLUMNS, *DOLMA_COLUMNS, *DCLM_COLUMNS)
_LINES = len(WORD_COLUMNS)
_REPEATS = _LINES + len(LINE_COLUMNS)
_DOLMA = _REPEATS + len(REPETITION_COLUMNS)
_DCLM = _DOLMA + len(DOLMA_COLUMNS)


@numba.njit(nogil=True, cache=True)
def split_words(p, n, kinds, hashes, ends) -> int:  # type: ignore[no-untyped-def]
    """Words as DCLM counts them, after the word boundaries of Unicode (UAX 29) and without punctuation.

    A run of letters, digits and underscores; one mark of ' ’ . : · may stand between letters, one of ' ’ . , ; between
    digits. Each Han or Kana character is a word. Fills hashes, and the letters before each word.
    """
    words = letters = i = 0
    ends[0] = 0
    while i < n:
        kind = kinds[p[i]]
        if not kind & ALPHANUMERIC and p[i] != 95:
            i += 1
            continue
        start, named = i, False
        key = np.uint64(0xCBF29CE484222325)
        while i < n:
            c = p[i]
            kind = kinds[c]
            if kind & IDEOGRAPH:
                if i > start:
                    break
                i, named, key = i + 1, True, key ^ np.uint64(c)
                break
            if kind & ALPHANUMERIC or c == 95:
                named |= kind & ALPHANUMERIC != 0
            else:
                if i + 1 >= n:
                    break
                both = kinds[p[i - 1]] & kinds[p[i + 1]]
                mark = c == 39 or c == 0x2019 or c == 46
                in_word = both & LETTER and not kinds[p[i + 1]] & IDEOGRAPH and (mark or c == 58 or c == 0xB7)
                in_number = both & DIGIT and (mark or c == 44 or c == 59)
                if not in_word and not in_number:
                    break
            key = (key ^ np.uint64(c)) * np.uint64(0x100000001B3)
            i += 1
        if named:
            hashes[words] = mix(key)
            letters += i - start
            words += 1
            ends[words] = letters
    return words


@numba.njit(nogil=True, cache=True)
def _gram_columns(n, words, ends, grams, row) -> None:  # type: ignore[no-untyped-def]
    """datatrove's shares, of all characters; the most frequent n-gram with its spaces, even if it stands there once."""
    for size in range(2, 5):
        count, first = grams[size, TOP_COUNT], grams[size, TOP_FIRST]
        if count == 0 and words >= size:
            count, first = 1, 0
        length = ends[first + size] - ends[first] + size - 1 if count else 0
        row[size - 2] = share(length * count, n)
    for size in range(5, 11):
        row[size - 2] = share(grams[size, WALKED], n)


@numba.njit(nogil=True, cache=True)
def _dolma_columns(words, ends, grams, row) -> None:  # type: ignore[no-untyped-def]
    """Dolma's: the most frequent n-gram without spaces, of the words' letters; copies of the letters of all n-grams."""
    for size in range(2, 5):
        count, first = grams[size, TOP_COUNT], grams[size, TOP_FIRST]
        if count == 0 and words >= size:
            count, first = 1, 0
        length = ends[first + size] - ends[first] if count else 0
        row[size - 2] = share(length * count, ends[words])
    for size in range(5, 11):
        row[size - 2] = share(grams[size, SUMMED], grams[size, EVERY])


@numba.njit(nogil=True, cache=True)
def _dclm_columns(words, ends, grams, row) -> None:  # type: ignore[no-untyped-def]
    """DCLM's: the longest of the most frequent n-grams, if they repeat; every word that a repeated n-gram covers."""
    for size in range(2, 5):
        row[size - 2] = share(grams[size, TOP_LONGEST] * grams[size, TOP_COUNT], ends[words])
    for size in range(5, 11):
        row[size - 2] = share(grams[size, COVERED], ends[words])


@numba.njit(nogil=True, cache=True)
def _scratch(words):  # type: ignore[no-untyped-def]
    """The cells and the scratch arrays of `measure_grams` for so many words."""
    a, b, c, d = (
        np.empty(words, np.int32),
        np.empty(words, np.int32),
        np.empty(words, np.int32),
        np.empty(words, np.int32),
    )
    return np.zeros(2 * table_size(words), np.uint64), (a, b, c, d, np.empty(words, np.uint64))


@numba.njit(nogil=True, cache=True)
def kernel(data, offsets, kinds, lower, variants, runs, out) -> None:  # type: ignore[no-untyped-def]
    """Fills out (documents, KERNEL_COLUMNS); the columns of other readings than datatrove's only with `variants`, those
    of repeats in succession only with `runs`."""
    room = longest(offsets)
    p = np.empty(room, np.int32)
    # A word takes two bytes at least, with the space after it; the scratch for n-grams grows with the words there are.
    hashes, ends = np.empty(room // 2 + 1, np.uint64), np.empty(room // 2 + 2, np.int32)
    histogram = np.zeros(LONGEST_COUNTED + 1, np.int64)
    capacity = 4096
    cells, places = _scratch(capacity)
    size = table_size(most_lines(data, offsets))
    clock, line_clock = np.zeros(1, np.int64), np.zeros(1, np.int32)
    tables = (np.empty(size, np.uint64), np.zeros(size, np.int32), np.empty(size, np.int8), line_clock)
    grams, top = np.zeros((11, 7), np.int64), np.zeros(2, np.int64)
    for d in range(len(out)):
        n = decode(data, offsets[d], offsets[d + 1], p)
        row, dolma, dclm = out[d, _LINES:_REPEATS], out[d, _DOLMA:_DCLM], out[d, _DCLM:]
        words = measure_words(p, n, kinds, lower, hashes, ends, histogram, variants, out[d])
        if measure_lines(p, n, words, ends[words], kinds, tables, variants, row, dolma, dclm):
            # A paragraph stands twice only where its first line does.
            measure_paragraphs(p, n, kinds, tables, row)
            if variants:
                measure_raw_paragraphs(p, n, kinds, tables, dclm)
        for reading in range(2 if variants else 1):
            if reading == 1:
                words = split_words(p, n, kinds, hashes, ends)
                dclm[0] = words
            if words > capacity:
                capacity = words
                cells, places = _scratch(capacity)
            measure_grams(words, hashes, ends, (cells, clock), places, top, grams)
            if reading == 1:
                _dclm_columns(words, ends, grams, dclm[7:])
                continue
            repeats = out[d, _REPEATS:_DOLMA]
            repeats[0], repeats[1] = share(top[0], words), share(top[0] + top[1], words)
            if runs:
                repeats[2] = longest_run(hashes, words, kinds, 0)
                repeats[3] = longest_run(p, n, kinds, ALPHANUMERIC)
            _gram_columns(n, words, ends, grams, repeats[4:])
            if variants:
                _dolma_columns(words, ends, grams, dolma[4:])
