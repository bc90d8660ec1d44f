"""What is measured on the characters and words of one document."""

import numba
import numpy as np

from glassbox.curate.characters import ALPHANUMERIC, IDEOGRAPH, LETTER, SPACE, TERMINAL, UNSPACED, mix

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
STOP_CHARACTERS = "的是在了和有不这這为為与與以于於"
"""Chinese counterparts: the most frequent characters that are words of grammar."""
SENTENCE = ".!?。！？।؟"
LONGEST_COUNTED = 1024
"""For the median, longer words count as so long."""
WORD_COLUMNS = (
    *("characters", "words", "mean_word_length", "hashes_per_word", "ellipses_per_word", "alphabetic_words"),
    *("stop_words", "stop_characters", "alphanumeric", "sentences", "curly_brackets", "clean_characters"),
    *("clause_length", "ideographs", "symbol_words", "median_word_length", "stop_words_exact", "stop_words_any_case"),
    "symbols_per_word",
)


def _short_word(word: str) -> int:
    """The number `_letters` gives a word of up to four letters."""
    value = 0
    for character in word:
        value = value << 16 | ord(character)
    return value


_STOP = np.array([_short_word(word) for word in STOP_WORDS], np.uint64)
_STOP_POINTS, _SENTENCE = (np.array([ord(one) for one in text], np.int32) for text in (STOP_CHARACTERS, SENTENCE))


@numba.njit(nogil=True, cache=True)
def index_of(points, point) -> int:  # type: ignore[no-untyped-def]
    for k in range(len(points)):
        if points[k] == point:
            return k
    return -1


@numba.njit(nogil=True, cache=True)
def share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _letters(p, first, last, lower, fold) -> np.uint64:  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for k in range(first, last):
        value = value << np.uint64(16) | np.uint64((lower[p[k]] if fold else p[k]) & 0xFFFF)
    return value


@numba.njit(nogil=True, cache=True)
def _ends_sentence(p, i, n, kinds) -> bool:  # type: ignore[no-untyped-def]
    """Whether p[i] is of SENTENCE and ends one: a full stop inside a number or a name does not; a Chinese sentence
    follows without a space."""
    if index_of(_SENTENCE, p[i]) < 0:
        return False
    after = p[i + 1] if i + 1 < n else 32
    return bool(p[i] > 0x2FFF or (not kinds[after] & ALPHANUMERIC and index_of(_SENTENCE, after) < 0))


@numba.njit(nogil=True, cache=True)
def _spaced(p, i) -> bool:  # type: ignore[no-untyped-def]
    """Whether the full stop at p[i] is the third of ". . ."."""
    return bool(p[i - 1] == 32 and p[i - 2] == 46 and p[i - 3] == 32 and p[i - 4] == 46)


@numba.njit(nogil=True, cache=True)
def _bits(seen) -> int:  # type: ignore[no-untyped-def]
    count = 0
    while seen:
        count, seen = count + (seen & 1), seen >> 1
    return count


@numba.njit(nogil=True, cache=True)
def measure_words(p, n, kinds, lower, hashes, ends, histogram, variants, row) -> int:  # type: ignore[no-untyped-def]
    """Fills WORD_COLUMNS, the words' hashes and the letters before each word; returns how many words there are."""
    words = letters = alphabetic = symbols = exact = any_case = longest_word = seen = i = 0
    ends[0] = 0
    while i < n:
        c = p[i]
        kind = kinds[c]
        if kind & SPACE:
            i += 1
            continue
        start, first, last, letter, symbol = i, -1, -1, np.uint8(0), False
        unspaced = kind & UNSPACED != 0
        key = np.uint64(0xCBF29CE484222325)
        while True:
            key = (key ^ np.uint64(c)) * np.uint64(0x100000001B3)
            if kind & ALPHANUMERIC:
                letter |= kind & LETTER
                last = i
                if first < 0:
                    first = i
            else:
                symbol |= c == 35 or c == 0x2026
            i += 1
            if i == n:
                break
            c = p[i]
            kind = kinds[c]
            if kind & (SPACE | UNSPACED) or (unspaced and kind & ALPHANUMERIC):
                break
        hashes[words] = mix(key)
        words += 1
        letters += i - start
        ends[words] = letters
        alphabetic += letter != 0
        symbols += symbol
        if 2 <= last + 1 - first <= 4:
            k = index_of(_STOP, _letters(p, first, last + 1, lower, True))
            if k >= 0:
                seen |= 1 << k
                if variants and last + 1 - first == i - start:
                    any_case += 1
                    exact += _letters(p, first, last + 1, lower, False) == _STOP[k]
        if variants:
            histogram[min(i - start, LONGEST_COUNTED)] += 1
            longest_word = max(longest_word, min(i - start, LONGEST_COUNTED))
    row[0], row[1], row[2] = n, words, share(letters, words)
    row[5], row[6] = share(alphabetic, words), _bits(seen)
    if variants:
        row[14], row[15] = share(symbols, words), _median(histogram, words, longest_word)
        row[16], row[17] = exact, any_case
    _measure_signs(p, n, kinds, words, variants, row)
    return words


@numba.njit(nogil=True, cache=True)
def _measure_signs(p, n, kinds, words, variants, row) -> None:  # type: ignore[no-untyped-def]
    """Fills those of WORD_COLUMNS that follow from the characters whatever word they are in, and their clauses."""
    alphanumeric = clean = ideographs = hash_signs = ellipses = sentences = curly = seen = 0
    dots = spaced_dots = spaced_from = clauses = clause = clause_letters = 0
    gap = False
    for i in range(n):
        c = p[i]
        kind = kinds[c]
        if kind & ALPHANUMERIC:
            alphanumeric, clause, dots = alphanumeric + 1, clause + 1, 0
            clean, gap = clean + 1 + gap, False
            if kind & IDEOGRAPH:
                ideographs += 1
                k = index_of(_STOP_POINTS, c)
                seen |= 1 << k if k >= 0 else 0
            continue
        if clause and (c == 10 or not kind & SPACE):
            clauses, clause_letters, clause = clauses + 1, clause_letters + clause, 0
        if kind & SPACE:
            gap, dots = clean > 0, 0
            continue
        if c > 126 or c < 33:
            clean, gap = clean + 1 + gap, False
        dots = dots + 1 if c == 46 else 0
        if dots == 3:
            ellipses, dots = ellipses + 1, 0
        if c == 46 and i >= spaced_from + 4 and _spaced(p, i):
            spaced_dots, spaced_from = spaced_dots + 1, i + 1
        ellipses += c == 0x2026
        hash_signs += c == 35
        curly += c == 123
        if kind & TERMINAL:
            sentences += _ends_sentence(p, i, n, kinds)
    if clause:
        clauses, clause_letters = clauses + 1, clause_letters + clause
    row[3], row[4], row[7] = share(hash_signs, words), share(ellipses, words), _bits(seen)
    row[8], row[9], row[10], row[11] = share(alphanumeric, n), sentences, curly, clean
    row[12], row[13] = share(clause_letters, clauses), share(ideographs, n)
    if variants:
        row[18] = share(hash_signs + ellipses + spaced_dots, words)


@numba.njit(nogil=True, cache=True)
def _median(histogram, count, longest) -> float:  # type: ignore[no-untyped-def]
    """The median of `count` lengths; empties the histogram."""
    total, low, high = 0, -1, -1
    for length in range(longest + 1):
        total += histogram[length]
        histogram[length] = 0
        if low < 0 and 2 * total >= count:
            low = length
        if high < 0 and 2 * total > count:
            high = length
    return (low + high) / 2 if count else 0.0
