"""What is measured on the text of one file of code: comments, visible text of HTML, data written as code."""

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, LETTER, SPACE, decode, longest
from glassbox.curate.rules.phrases import phrases, starts_with

NO_COMMENTS, HASH, SLASHES = range(3)
"""Styles of comments: not known; # and strings that are statements (Python); // and /* */."""
ENCODED_LETTERS, ENCODED_NUMBERS = 64, 8
"""Least characters of a run of base64; least numbers of a run of hexadecimal ones, or of \\u escapes."""
_BASE64 = np.zeros(128, np.bool_)
_BASE64[[ord(one) for one in "+/=\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"]] = True
_HEX = np.zeros(128, np.bool_)
_HEX[[ord(one) for one in "0123456789abcdefABCDEF"]] = True
_HIDDEN = phrases(("<script", "<style"))
_SHOWN = phrases(("</script", "</style"))


@numba.njit(nogil=True, cache=True)
def _string_end(p, i, n, quote) -> int:  # type: ignore[no-untyped-def]
    """Where the string that begins at `p[i]` ends: at its quote, or at the newline that leaves it open."""
    i += 1
    while i < n and p[i] != quote and (p[i] != 10 or quote == 96):
        i += 2 if p[i] == 92 else 1
    return min(i + 1, n)


@numba.njit(nogil=True, cache=True)
def _python_comments(p, n, kinds) -> int:  # type: ignore[no-untyped-def]
    """Characters of comments and of strings that stand alone as statements."""
    found = depth = i = 0
    statement = True  # nothing but white space stands before, on this line, outside of brackets
    while i < n:
        c, start = p[i], i
        if c == 35:
            while i < n and p[i] != 10:
                i += 1
            found += i - start
            continue
        if c == 34 or c == 39:
            if i + 2 < n and p[i + 1] == c and p[i + 2] == c:
                i += 3
                while i < n and not (p[i] == c and i + 2 < n and p[i + 1] == c and p[i + 2] == c):
                    i += 2 if p[i] == 92 else 1
                i = min(i + 3, n)
            else:
                i = _string_end(p, i, n, c)
            found += i - start if statement else 0
            statement = False
            continue
        depth += (c == 40 or c == 91 or c == 123) - (c == 41 or c == 93 or c == 125)
        if c == 10:
            depth, statement = max(depth, 0), depth <= 0
        elif not kinds[c] & SPACE and not (statement and (c == 114 or c == 117) and i + 1 < n and p[i + 1] == 34):
            statement = False
        i += 1
    return found


@numba.njit(nogil=True, cache=True)
def _slash_comments(p, n) -> int:  # type: ignore[no-untyped-def]
    found = i = 0
    while i < n:
        c, start = p[i], i
        if c == 34 or c == 39 or c == 96:
            i = _string_end(p, i, n, c)
        elif c == 47 and i + 1 < n and p[i + 1] == 47:
            while i < n and p[i] != 10:
                i += 1
            found += i - start
        elif c == 47 and i + 1 < n and p[i + 1] == 42:
            i += 2
            while i < n and not (p[i] == 42 and i + 1 < n and p[i + 1] == 47):
                i += 1
            i = min(i + 2, n)
            found += i - start
        else:
            i += 1
    return found


@numba.njit(nogil=True, cache=True)
def _visible(p, n, lower) -> int:  # type: ignore[no-untyped-def]
    """Characters outside of tags, comments, scripts and styles."""
    shown = i = 0
    while i < n:
        c = p[i + 1] if i + 1 < n else 32
        if p[i] != 60 or not (97 <= lower[c] <= 122 or c == 47 or c == 33 or c == 63):
            shown, i = shown + 1, i + 1
            continue
        if i + 3 < n and c == 33 and p[i + 2] == 45 and p[i + 3] == 45:
            i += 4
            while i < n and not (p[i] == 62 and p[i - 1] == 45 and p[i - 2] == 45):
                i += 1
            i += 1
            continue
        hidden = starts_with(p, i, n, lower, _HIDDEN) >= 0
        while i < n and p[i] != 62:
            i += 1
        i += 1
        while hidden and i < n and not (p[i] == 60 and starts_with(p, i, n, lower, _SHOWN) >= 0):
            i += 1
    return shown


@numba.njit(nogil=True, cache=True)
def _is(table, c) -> bool:  # type: ignore[no-untyped-def]
    return c < 128 and table[c]


@numba.njit(nogil=True, cache=True)
def _numbers_end(p, i, n, kinds, escapes) -> int:  # type: ignore[no-untyped-def]
    """Where a run of eight or more numbers that begins at `p[i]` ends; -1 if there is none.

    escapes: \\uXXXX one after the other; else two hexadecimal digits, perhaps after 0x or \\x, with commas or white
    space between.
    """
    count, digits = 0, 4 if escapes else 2
    while True:
        k = i
        mark = k + 1 < n and (
            (p[k] == 92 and p[k + 1] == (117 if escapes else 120)) or (p[k] == 48 and p[k + 1] == 120)
        )
        if escapes and not (mark and p[k] == 92):
            break
        k += 2 if mark else 0
        if k + digits > n:
            break
        good = True
        for j in range(k, k + digits):
            good &= _is(_HEX, p[j])
        k += digits
        if not good or (not escapes and k < n and (kinds[p[k]] & ALPHANUMERIC or p[k] == 95)):
            break
        while not escapes and k < n and (p[k] == 44 or kinds[p[k]] & SPACE):
            k += 1
        count, i = count + 1, k
    return i if count >= ENCODED_NUMBERS else -1


@numba.njit(nogil=True, cache=True)
def _encoded(p, n, kinds):  # type: ignore[no-untyped-def]
    """Characters of encoded data, and those of its longest run."""
    total = longest = i = tried = 0
    while i < n:
        end = -1
        if i >= tried and _is(_BASE64, p[i]):
            tried = i
            while tried < n and _is(_BASE64, p[tried]):
                tried += 1
            end = tried if tried - i >= ENCODED_LETTERS else -1
        word_before = i > 0 and (kinds[p[i - 1]] & ALPHANUMERIC or p[i - 1] == 95)
        if end < 0 and p[i] == 92:
            end = _numbers_end(p, i, n, kinds, True)
        if end < 0 and (p[i] == 92 or (_is(_HEX, p[i]) and not word_before)):
            end = _numbers_end(p, i, n, kinds, False)
        if end > i:
            total, longest, i = total + end - i, max(longest, end - i), end
        else:
            i += 1
    return total, longest


@numba.njit(nogil=True, cache=True)
def code_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.int32],
    styles: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """out (documents, 7): shares of letters, letters a piece, shares of comments, of encoded data, its longest run,
    share and number of visible characters."""
    p = np.empty(longest(offsets), np.int32)
    for d in range(len(out)):
        n = decode(data, offsets[d], offsets[d + 1], p)
        letters = pieces = before = 0
        for i in range(n):
            kind = kinds[p[i]]
            now = 0 if kind & SPACE else 1 if kind & LETTER else 2 if kind & ALPHANUMERIC else 3
            letters += now == 1
            pieces += now != 0 and now != before
            before = now
        out[d, 0], out[d, 1] = letters / max(n, 1), letters / max(pieces, 1)
        if styles[d] == HASH:
            out[d, 2] = _python_comments(p, n, kinds) / max(n, 1)
        elif styles[d] == SLASHES:
            out[d, 2] = _slash_comments(p, n) / max(n, 1)
        else:
            out[d, 2] = np.nan
        encoded, run = _encoded(p, n, kinds)
        shown = _visible(p, n, lower)
        out[d, 3], out[d, 4], out[d, 5], out[d, 6] = encoded / max(n, 1), run, shown / max(n, 1), shown
