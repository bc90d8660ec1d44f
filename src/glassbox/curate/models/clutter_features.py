"""What the line model of clutter sees of a line: its own form, its neighbours', its place in the document.

The features are those of data-curation practice for line classifiers (length, case, digits, stop words, punctuation,
addresses, clutter words), of the line and of the two lines before and after it; lines are those that are not blank.
"""

from functools import cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, IDEOGRAPH, LETTER, SPACE, character_tables, decode, utf8_buffer
from glassbox.curate.html.markup import look_up, table

OWN = 22
"""Features of a line by itself."""
AROUND = 2
"""Lines before and after whose features are a line's features too."""
PLACE = 8
"""Features of a line's place in the document."""
FEATURES = OWN * (2 * AROUND + 1) + PLACE
STOP_WORDS = """a about after all also an and are as at be because been but by can could do for from had has have he her
his how i if in into is it its just like may more most my no not of on one or other our out over she so some than that
the their them then there these they this to up was we were what when which who will with would you your
der die das und ist nicht ein eine zu den von mit auf für im sich des dem als auch es an werden aus er hat dass sie nach
wird bei einer um am sind noch wie einem über le la les de des et est un une du en que qui dans pour pas sur au avec ce
il sont plus ne se par el los las y es una por con para del al lo como su más pero il di che e non per una con del della
o que não uma os do da em и в не на что с по как это а"""
CLUTTER_WORDS = """cookie cookies subscribe subscription share login log sign comment comments reply privacy newsletter
follow related advertisement advertisements sponsored copyright rights reserved terms facebook twitter instagram
pinterest whatsapp linkedin youtube email tags tagged filed posted published updated author credit photo image getty
menu home
search contact sitemap previous next loading click download app register account password anzeige teilen kommentar
kommentare datenschutz impressum abonnieren mehr weiterlesen partager commentaires suivre compartir comentarios"""


@cache
def _words() -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Word -> 1 stop word, 2 clutter word."""
    kinds = dict.fromkeys(STOP_WORDS.split(), 1) | dict.fromkeys(CLUTTER_WORDS.split(), 2)
    return table(kinds)


def line_features(
    texts: pa.Array,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(documents,) large_string -> features (lines, FEATURES), each document's bounds (documents + 1,) among the lines,
    the lines' bytes in the batch's buffer (lines, 2), and whether each is in a fenced code block."""
    data, offsets = utf8_buffer(texts)
    size = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == 10)) + len(texts)
    own = np.zeros((size, OWN), np.float32)
    places, fenced = np.empty((size, 2), np.int64), np.zeros(size, np.bool_)
    bounds = np.zeros(len(texts) + 1, np.int64)
    kinds, lower = character_tables()
    longest = int(np.diff(offsets).max(initial=0)) + 1
    count = _lines(data, offsets, kinds, lower, *_words(), np.empty(longest, np.int32), own, places, fenced, bounds)
    features = np.zeros((count, FEATURES), np.float32)
    _context(own, bounds, features)
    return features, bounds, places[:count], fenced[:count]


@numba.njit(nogil=True, cache=True)
def _lines(data, offsets, kinds, lower, keys, values, points, own, places, fenced, bounds) -> int:  # type: ignore[no-untyped-def]
    count = 0
    for d in range(len(bounds) - 1):
        start, inside = offsets[d], False
        while start < offsets[d + 1]:
            end = start
            while end < offsets[d + 1] and data[end] != 10:
                end += 1
            n = decode(data, start, end, points)
            first = 0
            while first < n and kinds[points[first]] & SPACE:
                first += 1
            if first < n:
                while kinds[points[n - 1]] & SPACE:
                    n -= 1
                _own(points, first, n, kinds, lower, keys, values, own[count])
                fence = n - first >= 3 and points[first] == 96 and points[first + 1] == 96 and points[first + 2] == 96
                fenced[count] = inside or fence
                inside = inside != fence
                places[count, 0], places[count, 1] = start, end
                count += 1
            start = end + 1
        bounds[d + 1] = count
    return count


@numba.njit(nogil=True, cache=True)
def _own(points, first, n, kinds, lower, keys, values, out) -> None:  # type: ignore[no-untyped-def]
    letters = uppers = digits = ideographs = commas = dots = bars = foreign = 0
    words = stops = clutters = capitals = 0
    whole = np.uint64(0xCBF29CE484222325)
    word = np.uint64(0xCBF29CE484222325)
    inside = False
    address = False
    for i in range(first, n + 1):
        point = points[i] if i < n else 32
        kind = kinds[point]
        small = lower[point]
        whole = (whole ^ np.uint64(small)) * np.uint64(0x100000001B3)
        if kind & ALPHANUMERIC and not kind & IDEOGRAPH:
            if not inside:
                words += 1
                capitals += point != small
                word = np.uint64(0xCBF29CE484222325)
            inside = True
            # Hashed as UTF-8, of which two bytes are enough for these words.
            if small < 0x80:
                word = (word ^ np.uint64(small)) * np.uint64(0x100000001B3)
            else:
                word = (word ^ np.uint64(0xC0 | small >> 6)) * np.uint64(0x100000001B3)
                word = (word ^ np.uint64(0x80 | small & 0x3F)) * np.uint64(0x100000001B3)
        elif inside:
            known = look_up(keys, values, word)
            stops += known == 1
            clutters += known == 2
            inside = False
        letters += (kind & LETTER) != 0
        uppers += point != small
        digits += point >= 48 and point <= 57
        ideographs += (kind & IDEOGRAPH) != 0
        foreign += point >= 0x80
        commas += point == 44 or point == 0xFF0C or point == 0x3001
        dots += point == 46 or point == 0x3002
        bars += point == 124
        if point == 58 and i + 2 < n and points[i + 1] == 47 and points[i + 2] == 47:
            address = True
        if small == 119 and i + 3 < n and points[i + 1] == 119 and points[i + 2] == 119 and points[i + 3] == 46:
            address = True
    size = n - first
    last = points[n - 1]
    if (last == 34 or last == 39 or last == 41 or last == 0x201D or last == 0x2019 or last == 0xBB) and n - 1 > first:
        last = points[n - 2]
    begin = points[first]
    out[0] = np.log2(1.0 + size)
    out[1] = np.log2(1.0 + words + ideographs)
    out[2] = size / max(words, 1)
    out[3] = uppers / max(letters, 1)
    out[4] = digits / size
    out[5] = stops / max(words, 1)
    out[6] = (
        last == 46 or last == 33 or last == 63 or last == 0x3002 or last == 0xFF01 or last == 0xFF1F or last == 0x2026
    )
    out[7] = last == 58 or last == 0xFF1A
    out[8] = begin != lower[begin]
    out[9] = 0 if kinds[begin] & ALPHANUMERIC else (2 if begin == 0x2022 or begin == 45 or begin == 42 else 1)
    out[10] = min(commas, 20)
    out[11] = min(dots, 20)
    out[12] = min(bars, 20)
    out[13] = address
    out[14] = capitals / max(words, 1)
    out[15] = words + ideographs <= 3
    out[16] = min(clutters, 10)
    out[17] = ideographs / size
    out[18] = letters / size
    out[19] = foreign / size
    out[20] = min(first, 12)
    # The place of the line's hash, until the document's lines are compared.
    out[21] = np.float32(whole >> np.uint64(41))


@numba.njit(nogil=True, cache=True)
def _context(own, bounds, features) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(bounds) - 1):
        first, last = bounds[d], bounds[d + 1]
        n = last - first
        order = np.argsort(own[first:last, 21])
        hashes = own[first:last, 21].copy()
        k = 0
        while k < n:
            j = k
            while j < n and hashes[order[j]] == hashes[order[k]]:
                j += 1
            for i in range(k, j):
                own[first + order[i], 21] = min(j - k, 10)
            k = j
        before = np.zeros(n + 1)
        for i in range(n):
            before[i + 1] = before[i] + 2.0 ** own[first + i, 0]
        for i in range(n):
            row = features[first + i]
            for step in range(-AROUND, AROUND + 1):
                j = i + step
                column = (step + AROUND) * OWN
                if j < 0 or j >= n:
                    row[column : column + OWN] = -1.0
                else:
                    row[column : column + OWN] = own[first + j]
            column = (2 * AROUND + 1) * OWN
            row[column] = i / n
            row[column + 1] = before[i] / max(before[n], 1.0)
            row[column + 2] = np.log2(1.0 + n)
            row[column + 3] = min(i, 50)
            row[column + 4] = min(n - 1 - i, 50)
            for place, reach in ((5, 5), (6, 15), (7, 3)):
                low, high = max(i - reach, 0), min(i + reach + 1, n)
                row[column + place] = np.log2(1.0 + (before[high] - before[low]) / (high - low))
