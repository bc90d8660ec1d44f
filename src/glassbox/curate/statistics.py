"""The statistics that rules compare with thresholds: one row for each document, one pass over a batch.

Conventions. Words are split at white space. Lines are split at newlines, stripped, and counted if not empty; paragraphs
are split at blank lines. A share is between 0 and 1; a share of nothing is 0. Of lines, paragraphs and n-grams the
second and later copies count as duplicates. Repetition follows datatrove's reading of arXiv:2112.11446, table A1:
characters are those of the whole text, the most frequent n-gram is joined by spaces (the earliest of equals), and
duplicate n-grams are found by a walk that jumps over what it has counted.
"""

from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, LETTER, SPACE, character_tables, decode, mix, utf8_buffer
from glassbox.curate.edits import Cut

KERNEL_STATISTICS = (
    "characters",
    "words",
    "lines",
    "mean_word_length",
    "hashes_per_word",
    "ellipses_per_word",
    "bullet_lines",
    "ellipsis_lines",
    "alphabetic_words",
    "stop_words",
    "duplicate_lines",
    "duplicate_line_characters",
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "duplicate_5_grams",
    "duplicate_6_grams",
    "duplicate_7_grams",
    "duplicate_8_grams",
    "duplicate_9_grams",
    "duplicate_10_grams",
    "terminal_lines",
    "short_lines",
    "repeated_line_characters",
    "newlines_per_word",
    "longest_line",
    "mean_line",
    "alphanumeric",
    "sentences",
    "curly_brackets",
)
STATISTICS = (*KERNEL_STATISTICS, "lorem_ipsum", "generated")
"""Names of the columns of `statistics`, in order."""

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
TERMINAL = ".!?\"'…。！？”’।؟"
"""A line that ends in one of these ends a sentence."""
SENTENCE = ".!?。！？।؟"
BULLETS = "•●*-"
SHORT_LINE = 30
GENERATED = (
    r"(?i)auto-?\s?generated|automatically generated|generated (automatically|from)|generated file"
    r"|(file|code|module|table)s? (is|are|was|were) generated|do not (edit|modify)"
)
"""Marks of a generated file, looked for in its first five lines (arXiv:2402.19173 looks there too)."""
HEAD = r"^(?:[^\n]*\n){0,4}[^\n]*"


def statistics(
    text: pa.Array, meta: Sequence[str] = (), cuts: Sequence[list[Cut]] = (), sets: Sequence[str] | None = None
) -> NDArray[np.float32]:
    """(documents,) large_string without nulls -> (documents, len(STATISTICS)) float32.

    meta: each document's column `meta`; cuts: what its cleaning cut; sets: the rule sets whose statistics are wanted,
    by default all. What cannot be known without them, and what no wanted set asks for, is NaN.
    """
    data, offsets = utf8_buffer(text)
    out = np.zeros((len(text), len(STATISTICS)), np.float32)
    kinds, lower = character_tables()
    _kernel(data, offsets, kinds, lower, _STOP, _points(TERMINAL), _points(SENTENCE), _points(BULLETS), out)
    out[:, -2] = pc.count_substring(text, "lorem ipsum", ignore_case=True).to_numpy(zero_copy_only=False)
    heads = pc.struct_field(pc.extract_regex(text, f"(?P<head>{HEAD})"), "head")
    out[:, -1] = pc.match_substring_regex(heads, GENERATED).to_numpy(zero_copy_only=False)
    return out


def _points(characters: str) -> NDArray[np.int32]:
    return np.array([ord(character) for character in characters], np.int32)


@numba.njit(nogil=True, cache=True)
def _hash(points: NDArray[np.int32], start: int, end: int) -> np.uint64:
    value = np.uint64(0x9E3779B97F4A7C15)
    for i in range(start, end):
        value = (value ^ np.uint64(points[i])) * np.uint64(0x100000001B3)
    return mix(value)


@numba.njit(nogil=True, cache=True)
def _slot(keys: NDArray[np.uint64], stamps: NDArray[np.int64], stamp: int, key: np.uint64) -> int:
    """Where `key` is, or is to be put, in an open-addressing table; entries with another stamp are empty."""
    mask = np.int64(len(keys) - 1)
    slot = np.int64(key & np.uint64(mask))
    while stamps[slot] == stamp and keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot)


@numba.njit(nogil=True, cache=True)
def _member(characters: NDArray[np.int32], point: int) -> bool:
    for character in characters:  # noqa: SIM110 (any() of a generator is not compiled)
        if character == point:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _word_statistics(p, n, kinds, lower, stop, row, starts, ends, hashes) -> int:  # type: ignore[no-untyped-def]
    """Fills the word columns of `row` and the words' bounds and hashes; returns the number of words."""
    words = letters = hash_signs = ellipses = alphabetic = 0
    seen = np.zeros(len(stop), np.bool_)
    i = 0
    while i < n:
        if kinds[p[i]] & SPACE:
            i += 1
            continue
        start, has_letter = i, False
        while i < n and not kinds[p[i]] & SPACE:
            has_letter |= kinds[p[i]] & LETTER != 0
            hash_signs += p[i] == 35
            ellipses += p[i] == 0x2026
            i += 1
        starts[words], ends[words], hashes[words] = start, i, _hash(p, start, i)
        words += 1
        letters += i - start
        alphabetic += has_letter
        first, last = start, i
        while first < last and not kinds[p[first]] & ALPHANUMERIC:
            first += 1
        while last > first and not kinds[p[last - 1]] & ALPHANUMERIC:
            last -= 1
        if 2 <= last - first <= 4:
            value = np.uint64(0)
            for k in range(first, last):
                value = value << np.uint64(16) | np.uint64(lower[p[k]] & 0xFFFF)
            for k in range(len(stop)):
                seen[k] |= stop[k] == value
    i = 0
    while i + 2 < n:
        if p[i] == 46 and p[i + 1] == 46 and p[i + 2] == 46:
            ellipses += 1
            i += 3
        else:
            i += 1
    row[1] = words
    row[3] = _share(letters, words)
    row[4] = _share(hash_signs, words)
    row[5] = _share(ellipses, words)
    row[8] = _share(alphabetic, words)
    row[9] = seen.sum()
    return words


@numba.njit(nogil=True, cache=True)
def _pieces(p, n, kinds, paragraphs, terminal, bullets, keys, stamps, stamp, row) -> int:  # type: ignore[no-untyped-def]
    """Statistics of lines, or of paragraphs (which blank lines end); returns the number of newlines."""
    count = copies = copied = ended = short = bulleted = trailing = newlines = longest = total = rows = 0
    i = 0
    while i <= n:
        start = i
        while i < n and (p[i] != 10 or (paragraphs and not (i + 1 < n and p[i + 1] == 10))):
            i += 1
        end = i
        newlines += i < n
        rows += 1
        longest, total = max(longest, end - start), total + end - start
        i += 1
        while start < end and kinds[p[start]] & SPACE:
            start += 1
        while end > start and kinds[p[end - 1]] & SPACE:
            end -= 1
        if start == end:
            continue
        count += 1
        key = _hash(p, start, end)
        slot = _slot(keys, stamps, stamp, key)
        if stamps[slot] == stamp:
            copies += 1
            copied += end - start
        keys[slot], stamps[slot] = key, stamp
        ended += _member(terminal, p[end - 1])
        short += end - start <= SHORT_LINE
        bulleted += _member(bullets, p[start])
        dots = end - start >= 3 and p[end - 1] == 46 and p[end - 2] == 46 and p[end - 3] == 46
        trailing += dots or p[end - 1] == 0x2026
    if paragraphs:
        row[12], row[13] = _share(copies, count), _share(copied, n)
        return newlines
    row[2] = count
    row[6], row[7] = _share(bulleted, count), _share(trailing, count)
    row[10], row[11] = _share(copies, count), _share(copied, n)
    row[23], row[24], row[25] = _share(ended, count), _share(short, count), _share(copied, n - newlines)
    row[26] = _share(newlines, row[1])
    row[27], row[28] = longest, _share(total, rows)
    return newlines


@numba.njit(nogil=True, cache=True)
def _top_gram(size, words, starts, ends, rolling, power, keys, stamps, stamp, counts) -> int:  # type: ignore[no-untyped-def]
    """Characters of the most frequent n-gram (words joined by single spaces) times its count."""
    best, first = 0, -1
    for i in range(words - size + 1):
        key = mix(rolling[i + size] - rolling[i] * power)
        slot = _slot(keys, stamps, stamp, key)
        if stamps[slot] != stamp:
            keys[slot], stamps[slot], counts[slot] = key, stamp, 0
        counts[slot] += 1
        best = max(best, counts[slot])
    for i in range(words - size + 1):
        key = mix(rolling[i + size] - rolling[i] * power)
        if counts[_slot(keys, stamps, stamp, key)] == best:
            first = i
            break
    length = size - 1 if best else 0
    for k in range(first, first + size if best else first):
        length += ends[k] - starts[k]
    return length * best


@numba.njit(nogil=True, cache=True)
def _copied_grams(size, words, starts, ends, rolling, power, keys, stamps, stamp) -> int:  # type: ignore[no-untyped-def]
    """Characters of words in n-grams met before; the walk jumps over an n-gram it has counted."""
    copied = i = 0
    while i < words - size + 1:
        key = mix(rolling[i + size] - rolling[i] * power)
        slot = _slot(keys, stamps, stamp, key)
        if stamps[slot] == stamp:
            for k in range(i, i + size):
                copied += ends[k] - starts[k]
            i += size
        else:
            keys[slot], stamps[slot] = key, stamp
            i += 1
    return copied


@numba.njit(nogil=True, cache=True)
def _character_statistics(p, n, kinds, sentence, row) -> None:  # type: ignore[no-untyped-def]
    alphanumeric = curly = sentences = 0
    for i in range(n):
        alphanumeric += kinds[p[i]] & ALPHANUMERIC != 0
        curly += p[i] == 123
        if _member(sentence, p[i]):
            # A full stop inside a number or a name ends nothing; Chinese sentences follow without a space.
            after = p[i + 1] if i + 1 < n else 32
            sentences += p[i] > 0x2FFF or (not kinds[after] & ALPHANUMERIC and not _member(sentence, after))
    row[29], row[30], row[31] = _share(alphanumeric, n), sentences, curly


@numba.njit(nogil=True, cache=True)
def _kernel(data, offsets, kinds, lower, stop, terminal, sentence, bullets, out) -> None:  # type: ignore[no-untyped-def]
    longest = 1
    for d in range(len(out)):
        longest = max(longest, offsets[d + 1] - offsets[d])
    p = np.empty(longest, np.int32)
    starts, ends = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    hashes, rolling = np.empty(longest + 1, np.uint64), np.empty(longest + 2, np.uint64)
    size = 4
    while size < 2 * (longest + 2):
        size *= 2
    keys, stamps, counts = np.empty(size, np.uint64), np.zeros(size, np.int64), np.empty(size, np.int32)
    stamp = 0
    for d in range(len(out)):
        row = out[d]
        n = decode(data, offsets[d], offsets[d + 1], p)
        row[0] = n
        words = _word_statistics(p, n, kinds, lower, stop, row, starts, ends, hashes)
        stamp += 1
        _pieces(p, n, kinds, False, terminal, bullets, keys, stamps, stamp, row)
        stamp += 1
        _pieces(p, n, kinds, True, terminal, bullets, keys, stamps, stamp, row)
        base = np.uint64(0x9E3779B97F4A7C15)
        rolling[0] = np.uint64(0)
        for i in range(words):
            rolling[i + 1] = rolling[i] * base + hashes[i]
        power = base
        for gram in range(2, 11):
            power *= base
            stamp += 1
            if gram <= 4:
                top = _top_gram(gram, words, starts, ends, rolling, power, keys, stamps, stamp, counts)
                row[12 + gram] = _share(top, n)
            else:
                row[12 + gram] = _share(
                    _copied_grams(gram, words, starts, ends, rolling, power, keys, stamps, stamp), n
                )
        _character_statistics(p, n, kinds, sentence, row)


def _short_word(word: str) -> int:
    """The number `_word_statistics` gives a word of up to four letters."""
    value = 0
    for character in word:
        value = value << 16 | ord(character)
    return value


_STOP = np.array([_short_word(word) for word in STOP_WORDS], np.uint64)
