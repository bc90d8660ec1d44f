"""What is measured on the lines and paragraphs of one document."""

import numba
import numpy as np

from glassbox.curate.characters import SPACE, TERMINAL, word_key
from glassbox.curate.rules.line_kernel import line_bounds
from glassbox.curate.rules.repetition import insert
from glassbox.curate.rules.word_statistics import index_of, share

BULLETS = "•●*-"
SHORT_LINE, SHORT_WIDE_LINE = 30, 10
"""Characters a short line has at most; in scripts without spaces between words."""
LINE_COLUMNS = (
    *("lines", "bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters", "terminal_lines"),
    *("short_lines", "short_wide_lines", "repeated_line_characters", "newlines_per_word", "longest_line", "mean_line"),
    *("duplicate_paragraphs", "duplicate_paragraph_characters"),
)
_BULLET_POINTS = np.array([ord(one) for one in BULLETS], np.int32)


@numba.njit(nogil=True, cache=True)
def _new_copies(keys, stamps, stamp, mask, counts, key) -> int:  # type: ignore[no-untyped-def]
    """How many more pieces are copies, where all of several count, now that one of hash `key` was read."""
    slot = insert(keys, stamps, stamp, mask, key)
    if slot < 0:
        counts[~slot] = 1
        return 0
    # The second copy makes the first one count too.
    new = 2 if counts[slot] == 1 else 1
    counts[slot] = 2
    return new


@numba.njit(nogil=True, cache=True)
def measure_lines(p, n, words, letters, kinds, tables, variants, row, dolma, dclm) -> bool:  # type: ignore[no-untyped-def]
    """Fills LINE_COLUMNS but for paragraphs, and the variants' shares of lines; whether a line stands there twice."""
    keys, stamps, counts, clock = tables
    count = copies = copied = ended = short = wide = bulleted = trailing = newlines = longest = total = rows = 0
    # Of lines as they stand, blank ones too (Dolma); of those that are not blank (DCLM).
    raw = np.zeros(4, np.int64)
    raw_filled = np.zeros(6, np.int64)
    clock[0] += 1
    stamp, mask = clock[0], np.int64(len(keys) - 1)
    at = 0
    while at <= n:
        end, first, last = line_bounds(p, at, n, kinds)
        newlines += end < n
        rows += 1
        longest, total = max(longest, end - at), total + end - at
        if first < last:
            count += 1
            slot = insert(keys, stamps, stamp, mask, word_key(p, first, last))
            if slot >= 0:
                copies, copied = copies + 1, copied + last - first
            tail = p[last - 1]
            ended += kinds[tail] & TERMINAL != 0
            short += last - first <= SHORT_LINE
            wide += last - first <= SHORT_WIDE_LINE
            bulleted += index_of(_BULLET_POINTS, p[first]) >= 0
            dots = tail == 46 and last - first >= 3 and p[last - 2] == 46 and p[last - 3] == 46
            trailing += dots or tail == 0x2026
        at = end + 1
    row[0], row[1], row[2] = count, share(bulleted, count), share(trailing, count)
    row[3], row[4], row[5] = share(copies, count), share(copied, n), share(ended, count)
    row[6], row[7], row[8] = share(short, count), share(wide, count), share(copied, n - newlines)
    row[9], row[10], row[11] = share(newlines, words), longest, share(total, rows)
    if variants:
        clock[0] += 1
        at, stamp = 0, clock[0]
        while at <= n:
            end, first, last = line_bounds(p, at, n, kinds)
            dotted = end > at and p[end - 1] == 0x2026
            raw[0] += end > at and (p[at] == 42 or p[at] == 45)
            raw[1] += dotted
            filled = first < last
            if filled:
                raw_filled[0] += 1
                raw_filled[1] += end - at
                raw_filled[2] += index_of(_BULLET_POINTS, p[at]) >= 0
                dotted |= end - at >= 3 and p[end - 1] == 46 and p[end - 2] == 46 and p[end - 3] == 46
                if end - at >= 5 and p[end - 1] == 46 and p[end - 2] == 32 and p[end - 3] == 46:
                    dotted |= p[end - 4] == 32 and p[end - 5] == 46
                raw_filled[3] += dotted
            new = _new_copies(keys, stamps, stamp, mask, counts, word_key(p, at, end))
            raw[2] += new
            raw[3] += new * (end - at)
            raw_filled[4] += new * filled
            raw_filled[5] += new * filled * (end - at)
            at = end + 1
        dolma[0], dolma[1] = share(raw[0], rows), share(raw[1], rows)
        dolma[2], dolma[3] = share(raw[2], rows), share(raw[3], letters)
        dclm[1], dclm[2] = share(raw_filled[2], raw_filled[0]), share(raw_filled[3], raw_filled[0])
        if raw_filled[0] > 1:
            dclm[3], dclm[4] = share(raw_filled[4], raw_filled[0]), share(raw_filled[5], raw_filled[1])
    return copies > 0


@numba.njit(nogil=True, cache=True)
def measure_paragraphs(p, n, kinds, tables, row) -> None:  # type: ignore[no-untyped-def]
    """Duplicate paragraphs: shares of those that are not blank, and of the characters. Two newlines or more end one."""
    keys, stamps, _, clock = tables
    clock[0] += 1
    stamp, mask = clock[0], np.int64(len(keys) - 1)
    count = copies = copied = i = 0
    while i <= n:
        first = i
        while i < n and (p[i] != 10 or not (i + 1 < n and p[i + 1] == 10)):
            i += 1
        last = i
        i += 1
        while first < last and kinds[p[first]] & SPACE:
            first += 1
        while last > first and kinds[p[last - 1]] & SPACE:
            last -= 1
        if first < last:
            count += 1
            if insert(keys, stamps, stamp, mask, word_key(p, first, last)) >= 0:
                copies, copied = copies + 1, copied + last - first
    row[12], row[13] = share(copies, count), share(copied, n)


@numba.njit(nogil=True, cache=True)
def measure_raw_paragraphs(p, n, kinds, tables, dclm) -> None:  # type: ignore[no-untyped-def]
    """DCLM's reading: split at exactly two newlines, blank ones left out, all copies count, one paragraph passes."""
    keys, stamps, counts, clock = tables
    clock[0] += 1
    stamp, mask = clock[0], np.int64(len(keys) - 1)
    count = copies = copied = characters = i = 0
    while i <= n:
        first = i
        while i < n and not (p[i] == 10 and i + 1 < n and p[i + 1] == 10):
            i += 1
        filled = False
        for k in range(first, i):
            if not kinds[p[k]] & SPACE:
                filled = True
                break
        if filled:
            count, characters = count + 1, characters + i - first
            new = _new_copies(keys, stamps, stamp, mask, counts, word_key(p, first, i))
            copies, copied = copies + new, copied + new * (i - first)
        i += 2
    if count > 1:
        dclm[5], dclm[6] = share(copies, count), share(copied, characters)
