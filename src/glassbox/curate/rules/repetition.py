"""Repeated words and n-grams of one document, exactly: no n-gram is hashed that cannot repeat.

An (n + 1)-gram repeats only where its first n words do, so from n to n + 1 only places of repeated n-grams are kept;
in most texts a few in a hundred are left after n = 3. N-grams are told apart by 64-bit hashes.
"""

import numba
import numpy as np

TOP_SIZES, COPIED_SIZES = (2, 3, 4), (5, 6, 7, 8, 9, 10)
LONGEST_PERIOD = 13
"""Runs of n-grams of up to so many words or characters are looked for (arXiv:2409.02060, section 2)."""
TOP_COUNT, TOP_FIRST, TOP_LONGEST, WALKED, COVERED, SUMMED, EVERY = range(7)
"""Columns of `measure_grams`: of the most frequent n-gram (a count above 1) its count, the place of the earliest of the
equally frequent and the letters of the longest of them; letters of repeated n-grams by datatrove's walk, which jumps
over what it has counted; letters of words that some repeated n-gram covers; letters of all repeated n-grams, overlaps
counted as often as they occur; letters of all n-grams."""
_STAMP, _NUMBER = np.uint64(0xFFFFFFFF00000000), np.uint64(0xFFFFFFFF)


@numba.njit(nogil=True, cache=True)
def table_size(entries) -> int:  # type: ignore[no-untyped-def]
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@numba.njit(nogil=True, cache=True)
def insert(keys, stamps, stamp, mask, key) -> int:  # type: ignore[no-untyped-def]
    """The slot of `key` in an open-addressing table, entries of other stamps being empty; negative (~slot) if new."""
    slot = np.int64(key & np.uint64(mask))
    while stamps[slot] == stamp:
        if keys[slot] == key:
            return int(slot)
        slot = (slot + 1) & mask
    keys[slot], stamps[slot] = key, stamp
    return int(~slot)


@numba.njit(nogil=True, cache=True)
def measure_grams(words, hashes, ends, table, places, top, out) -> None:  # type: ignore[no-untyped-def]
    """Fills `out` (11, 7) for n = 2 ... 10, and `top` with the counts of the two most frequent words.

    hashes: of each word; ends: (words + 1,) letters before each word; table: (cells, clock), two cells for each of at
    least `table_size(words)` slots; places: five scratch arrays as long as the words.
    """
    cells, clock = table
    at, numbers, counts, firsts, grams = places
    out[:] = 0
    top[:] = 0
    sums = np.int64(0)
    for i in range(words + 1):
        sums += ends[i]
    base = np.uint64(0x9E3779B97F4A7C15)
    left = words
    for i in range(words):
        at[i], grams[i] = i, 0
    head = tail = np.int64(0)
    for n in range(1, 11):
        # Letters of all n-grams: the sum of ends[i + n] - ends[i] over their places.
        head += ends[min(n - 1, words)]
        tail += ends[max(words - n + 1, 0)]
        row = out[n]
        if n <= words:
            row[EVERY] = (sums - head) - (sums - tail)
        # A slot is two cells: the hash, and the number of the n-gram under the stamp of this turn.
        clock[0] += 1
        stamp, mask, found, distinct = np.uint64(clock[0]) << np.uint64(32), table_size(left) - 1, 0, 0
        for k in range(left):
            i = at[k]
            if i + n > words:
                continue
            key = grams[k] * base + hashes[i + n - 1]
            slot = np.int64(2) * np.int64(key & np.uint64(mask))
            while cells[slot + 1] & _STAMP == stamp and cells[slot] != key:
                slot = (slot + 2) & (2 * mask + 1)
            if cells[slot + 1] & _STAMP != stamp:
                cells[slot], cells[slot + 1] = key, stamp | np.uint64(distinct)
                counts[distinct], firsts[distinct] = 1, i
                number = distinct
                distinct += 1
            else:
                number = int(cells[slot + 1] & _NUMBER)
                counts[number] += 1
            at[found], numbers[found], grams[found] = i, number, key
            found += 1
        if n == 1:
            for number in range(distinct):
                count = counts[number]
                if count > top[0]:
                    top[0], top[1] = count, top[0]
                else:
                    top[1] = max(top[1], count)
        left, covered, walked = 0, 0, 0
        for k in range(found):
            i, number = at[k], numbers[k]
            count = counts[number]
            if count < 2:
                continue
            at[left], grams[left] = i, grams[k]
            left += 1
            if n == 1:
                continue
            letters = ends[i + n] - ends[i]
            if n <= 4:
                if count > row[TOP_COUNT]:
                    row[TOP_COUNT], row[TOP_FIRST], row[TOP_LONGEST] = count, i, letters
                elif count == row[TOP_COUNT]:
                    row[TOP_LONGEST] = max(row[TOP_LONGEST], letters)
                continue
            row[SUMMED] += letters
            row[COVERED] += ends[i + n] - ends[max(i, covered)]
            covered = i + n
            if i >= walked:
                if firsts[number] < 0:
                    row[WALKED] += letters
                    walked = i + n
                else:
                    firsts[number] = -1


@numba.njit(nogil=True, cache=True)
def longest_run(x, n, kinds, wanted) -> int:  # type: ignore[no-untyped-def]
    """How often at most an m-gram of the sequence `x[:n]`, m = 1 ... 13, stands there in succession (0 if n is 0).

    kinds: with `wanted`, bits of which an element of the m-gram must have one for its run to count; so rulers of dashes
    and indentation are no repeats. A run that would not beat the best so far is passed over in steps of its length.
    """
    best = 1 if n else 0
    for period in range(1, min(LONGEST_PERIOD, n - 1) + 1):
        low, known = period, period - 1  # from low to known the two are equal
        while True:
            need = best * period  # so long must a run of x[i] == x[i - period] be to mean best + 1 repeats
            at = low + need - 1
            if at >= n:
                break
            first = at
            while first > known and x[first] == x[first - period]:
                first -= 1
            if first > known:
                low, known = first + 1, at
                continue
            end = at + 1
            while end < n and x[end] == x[end - period]:
                end += 1
            counts = not wanted
            if wanted:
                for i in range(low - period, low):
                    counts |= kinds[x[i]] & wanted != 0
            if counts:
                best = (end - low + period) // period
            low, known = end + 1, end
    return best
