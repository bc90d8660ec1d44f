"""The line rules as one kernel over a batch: which lines, and which parts of lines, each document loses."""

import numba
import numpy as np

from glassbox.curate.characters import (
    ALPHANUMERIC,
    DIGIT,
    SPACE,
    UNSPACED,
    UPPER,
    decode,
    longest,
    mix,
    unit_end,
    word_key,
)
from glassbox.curate.rules.phrases import (
    CART,
    COUNTS,
    JAVASCRIPT,
    NOTE,
    POLICY,
    PROMPT_WORD,
    READ_MORE,
    SIGN_IN,
    contains,
    starts_with,
)
from glassbox.curate.rules.repetition import table_size
from glassbox.recipe.rules import LINE_RULES

LONGEST_WORD = 1000
REPEATED_SPAN = 3
SHORT_LINE_WORDS = 10
"""In-line phrases are cut from lines of at most so many words."""
PROMPT_WORDS, PROMPT_LETTERS, PROMPT_CHARACTERS = 12, 24, 200
"""A prompt is a line of at most so many words, or so many letters where the script has no spaces between words."""
ENDS, QUOTED_ENDS, WIDE_ENDS, CLOSING = (
    np.array([ord(c) for c in ends], np.int32) for ends in (".!?\"'", '.!?"', "。！？．｡", "”’」』）〉》")
)
_REPEATED, _LONG_WORD, _JAVASCRIPT, _POLICY, _TERMINAL, _TERMINAL_TFDS, _FEW_WORDS, _FEW_WORDS_5, _CITATIONS = range(9)
_UPPER_CASE, _DIGITS, _COUNTER, _ONE_WORD, _CART, _READ_MORE, _SIGN_IN, _PROMPT, _BARE_PATH = range(9, len(LINE_RULES))


@numba.njit(nogil=True, cache=True)
def _is_in(points, point) -> bool:  # type: ignore[no-untyped-def]
    for one in points:  # noqa: SIM110
        if one == point:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _ends_sentence(p, start, end, ends) -> bool:  # type: ignore[no-untyped-def]
    """One of `ends` or a full-width one, perhaps in closing quotation marks; three dots end nothing."""
    last = p[end - 1]
    if last == 46 and end - start >= 3 and p[end - 2] == 46 and p[end - 3] == 46:
        return False
    if _is_in(ends, last) or _is_in(WIDE_ENDS, last):
        return True
    return bool(_is_in(CLOSING, last) and end - start >= 2 and _is_in(WIDE_ENDS, p[end - 2]))


@numba.njit(nogil=True, cache=True)
def _is_counter(p, start, end, kinds, lower) -> bool:  # type: ignore[no-untyped-def]
    r"""Whether the line is `\W*\d(,|\.|\d)*[KMB]?\s+(likes|shares|...)\W*` and nothing else."""
    i = start
    while i < end and not kinds[p[i]] & ALPHANUMERIC and p[i] != 95:
        i += 1
    if i == end or not kinds[p[i]] & DIGIT:
        return False
    while i < end and (kinds[p[i]] & DIGIT or p[i] == 44 or p[i] == 46):
        i += 1
    if i < end and (lower[p[i]] == 107 or lower[p[i]] == 109 or lower[p[i]] == 98):
        i += 1
    gap = i
    while i < end and kinds[p[i]] & SPACE:
        i += 1
    if i == gap:
        return False
    i = starts_with(p, i, end, lower, COUNTS)
    if i < 0:
        return False
    while i < end and not kinds[p[i]] & ALPHANUMERIC and p[i] != 95:
        i += 1
    return bool(i == end)


@numba.njit(nogil=True, cache=True)
def _inline(rule, p, start, end, kinds, lower, i) -> int:  # type: ignore[no-untyped-def]
    """Where the part that `rule` cuts ends, if one begins at `i`; else -1."""
    if rule == _CITATIONS:
        if p[i] != 91:
            return -1
        j = i + 1
        while j < end and kinds[p[j]] & DIGIT:
            j += 1
        if j < end and p[j] == 93:
            return j + 1
        return starts_with(p, i + 1, end, lower, NOTE)
    if rule == _CART:
        return starts_with(p, i, end, lower, CART)
    if rule == _SIGN_IN:
        return starts_with(p, i, end, lower, SIGN_IN) if i == start else -1
    j = starts_with(p, i, end, lower, READ_MORE)
    dots = j == end - 3 and p[j] == 46 and p[j + 1] == 46 and p[j + 2] == 46
    return end if j >= 0 and (dots or (j == end - 1 and p[j] == 0x2026)) else -1


@numba.njit(nogil=True, cache=True)
def is_prompt(p, start, end, kinds, lower) -> bool:  # type: ignore[no-untyped-def]
    """Whether a stripped line is short and holds one of PROMPTS."""
    if end - start > PROMPT_CHARACTERS:
        return False
    words, most, i = 0, PROMPT_WORDS, start
    while i < end:
        if kinds[p[i]] & SPACE:
            i += 1
            continue
        most = PROMPT_LETTERS if kinds[p[i]] & UNSPACED else most
        words, i = words + 1, unit_end(p, i, end, kinds)
    return bool(words <= most and contains(p, start, end, lower, PROMPT_WORD))


@numba.njit(nogil=True, cache=True)
def _whole(rule, p, start, end, kinds, lower, words, longest_word) -> bool:  # type: ignore[no-untyped-def]
    """Whether `rule` cuts the line `p[start:end]`; counts of words are those of the line before in-line cuts."""
    if rule == _LONG_WORD:
        return bool(longest_word > LONGEST_WORD)
    if rule == _JAVASCRIPT:
        return contains(p, start, end, lower, JAVASCRIPT)
    if rule == _POLICY:
        return contains(p, start, end, lower, POLICY)
    if rule == _TERMINAL:
        return not _ends_sentence(p, start, end, ENDS)
    if rule == _TERMINAL_TFDS:
        return not _ends_sentence(p, start, end, QUOTED_ENDS)
    if rule == _FEW_WORDS:
        return bool(words < 3)
    if rule == _FEW_WORDS_5:
        return bool(words < 5)
    if rule == _ONE_WORD:
        return bool(words < 2)
    if rule == _COUNTER:
        return _is_counter(p, start, end, kinds, lower)
    if rule == _PROMPT:
        return is_prompt(p, start, end, kinds, lower)
    upper = digits = slashes = 0
    for i in range(start, end):
        upper += kinds[p[i]] & UPPER != 0
        digits += kinds[p[i]] & DIGIT != 0
        slashes += p[i] == 47 or p[i] == 92
    if rule == _UPPER_CASE:
        return bool(upper > 0.5 * (end - start))
    if rule == _DIGITS:
        return bool(digits == end - start)
    return bool(rule == _BARE_PATH and words == 1 and slashes)


@numba.njit(nogil=True, cache=True)
def line_bounds(p, at, n, kinds):  # type: ignore[no-untyped-def]
    """The line that begins at `at`: where it ends, and its bounds without white space around it."""
    end = at
    while end < n and p[end] != 10:
        end += 1
    first, last = at, end
    while first < last and kinds[p[first]] & SPACE:
        first += 1
    while last > first and kinds[p[last - 1]] & SPACE:
        last -= 1
    return end, first, last


@numba.njit(nogil=True, cache=True)
def _grown(rows):  # type: ignore[no-untyped-def]
    larger = np.empty((2 * len(rows), rows.shape[1]), rows.dtype)
    larger[: len(rows)] = rows
    return larger


@numba.njit(nogil=True, cache=True)
def _mark_repeats(p, n, kinds, keys, spans, stamps, stamp, marked) -> None:  # type: ignore[no-untyped-def]
    """Marks every line (blank ones not counted) of a span of three that stood in the document before."""
    lines = at = 0
    while at <= n:
        end, first, last = line_bounds(p, at, n, kinds)
        if first < last:
            keys[lines], marked[lines] = word_key(p, first, last), False
            lines += 1
        at = end + 1
    mask = np.int64(len(spans) - 1)
    for k in range(lines - REPEATED_SPAN + 1):
        key = mix(keys[k] * np.uint64(3) + mix(keys[k + 1] * np.uint64(5) + mix(keys[k + 2])))
        slot = np.int64(key & np.uint64(mask))
        while stamps[slot] == stamp and spans[slot] != key:
            slot = (slot + 1) & mask
        if stamps[slot] == stamp:
            marked[k : k + REPEATED_SPAN] = True
        spans[slot], stamps[slot] = key, stamp


@numba.njit(nogil=True, cache=True)
def most_lines(data, offsets) -> np.int64:  # type: ignore[no-untyped-def]
    """Lines of the document that has most."""
    most = np.int64(1)
    for d in range(len(offsets) - 1):
        most = max(most, np.int64((data[offsets[d] : offsets[d + 1]] == 10).sum() + 1))
    return most


@numba.njit(nogil=True, cache=True)
def _is_inline(rule) -> bool:  # type: ignore[no-untyped-def]
    return bool(rule == _CITATIONS or _CART <= rule <= _SIGN_IN)


@numba.njit(nogil=True, cache=True)
def _cut_parts(rule, text, start, stop, left, where, place, kinds, lower, out, count):  # type: ignore[no-untyped-def]
    """Cuts every part that `rule` names from `text[start:stop]`; out, count, and the bounds of the rest in `left`.

    where: the places of `left` in the document. place: document, line, where that starts, whether `text` is `left`.
    """
    document, line, at, edited = place
    i, m = start, 0
    while i < stop:
        j = _inline(rule, text, start, stop, kinds, lower, i)
        origin = where[i] if edited else i
        if j < 0:
            left[m], where[m] = text[i], origin
            m, i = m + 1, i + 1
            continue
        if count == len(out):
            out = _grown(out)
        out[count] = document, origin, (where[j - 1] if edited else j - 1) + 1, line, at, rule
        count, i = count + 1, j
    first = 0
    while first < m and kinds[left[first]] & SPACE:
        first += 1
    while m > first and kinds[left[m - 1]] & SPACE:
        m -= 1
    return out, count, first, m


@numba.njit(nogil=True, cache=True)
def cut_kernel(data, offsets, kinds, lower, rules, repeated):  # type: ignore[no-untyped-def]
    """(cuts, 6) int64: document, where the cut starts and ends, its line, where that starts (code points), its rule.

    `repeated` is asked first, the other `rules` in their order. A whole line is a cut from its start to the newline.
    """
    inline = False
    for rule in rules:
        inline |= _is_inline(rule)
    room = longest(offsets)
    p, left = np.empty(room, np.int32), np.empty(room if inline else 1, np.int32)
    where = np.empty(room if inline else 1, np.int32)
    lines = most_lines(data, offsets) if repeated else np.int64(1)
    size = table_size(lines)
    spans, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    keys, marked = np.empty(lines, np.uint64), np.zeros(lines, np.bool_)
    out, count = np.empty((256, 6), np.int64), 0
    for d in range(len(offsets) - 1):
        n = decode(data, offsets[d], offsets[d + 1], p)
        if repeated:
            _mark_repeats(p, n, kinds, keys, spans, stamps, d + 1, marked)
        line = at = 0
        while at <= n:
            end, first, last = line_bounds(p, at, n, kinds)
            if first == last:
                at = end + 1
                continue
            before, whole = count, _REPEATED if repeated and marked[line] else -1
            words = longest_word = length = 0
            unspaced = False
            for i in range(first, last):
                # The words of `unit_end`, counted without the call.
                kind = kinds[p[i]]
                if kind & SPACE:
                    length = 0
                    continue
                if length == 0 or kind & UNSPACED or (unspaced and kind & ALPHANUMERIC):
                    words, length, unspaced = words + 1, 0, kind & UNSPACED != 0
                length += 1
                longest_word = max(longest_word, length)
            text, start, stop = p, first, last
            place = d, line, at, False
            for rule in rules:
                if whole >= 0:
                    break
                if not _is_inline(rule):
                    whole = rule if _whole(rule, text, start, stop, kinds, lower, words, longest_word) else -1
                elif rule == _CITATIONS or words <= SHORT_LINE_WORDS:
                    i = start
                    while i < stop and (
                        (rule == _CITATIONS and text[i] != 91) or _inline(rule, text, start, stop, kinds, lower, i) < 0
                    ):
                        i += 1
                    if i < stop:
                        out, count, start, stop = _cut_parts(
                            rule, text, start, stop, left, where, place, kinds, lower, out, count
                        )
                        text, place, whole = left, (d, line, at, True), rule if start == stop else -1
            if whole >= 0:
                if before == len(out):
                    out = _grown(out)
                out[before] = d, at, end, line, -1, whole
                count = before + 1
            line += 1
            at = end + 1
    return out[:count]
