"""Bytes of a page: where tags end, and what a start tag says of its element."""

import numba
import numpy as np

from glassbox.curate.html import markup as m
from glassbox.curate.html.layout import ALT, ALT_END, CLOSED, FLAG, TEX
from glassbox.curate.html.markup import look_up


@numba.njit(nogil=True, cache=True)
def find_byte(data, i, byte):  # type: ignore[no-untyped-def]
    n = len(data)
    while i < n and data[i] != byte:
        i += 1
    return i


@numba.njit(nogil=True, cache=True)
def after_comment(data, i):  # type: ignore[no-untyped-def]
    """The place after a comment or declaration."""
    n = len(data)
    if i + 3 < n and data[i + 2] == 45 and data[i + 3] == 45:
        k = i + 4
        if k < n and data[k] == 62:
            return k + 1
        while k < n:
            if data[k] == 62 and data[k - 1] == 45 and data[k - 2] == 45:
                return k + 1
            k += 1
        return n
    return find_byte(data, i, 62) + 1


@numba.njit(nogil=True, cache=True)
def name_at(data, i):  # type: ignore[no-untyped-def]
    """The hash of an element's name, and the place after it."""
    n = len(data)
    value = np.uint64(0xCBF29CE484222325)
    while i < n:
        c = data[i]
        if c <= 32 or c == 62 or c == 47:
            break
        if c >= 65 and c <= 90:
            c |= 32
        value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
        i += 1
    return value, i


@numba.njit(nogil=True, cache=True)
def after_raw(data, i, key):  # type: ignore[no-untyped-def]
    """The place after the end tag of an element whose content is no markup."""
    n = len(data)
    while i < n:
        while i < n and data[i] != 60:
            i += 1
        if i + 2 < n and data[i + 1] == 47:
            other, k = name_at(data, i + 2)
            if other == key:
                return find_byte(data, k, 62) + 1
        i += 1
    return n


@numba.njit(nogil=True, cache=True)
def read_attributes(  # type: ignore[no-untyped-def]
    data, k, found, attribute_keys, attribute_values, word_keys, word_values, role_keys, role_values
):
    """Reads a start tag's attributes into `found` (flags, formula kind, alt from, alt to); the place after the tag."""
    n = len(data)
    while k < n:
        c = data[k]
        if c == 62:
            found[CLOSED] = data[k - 1] == 47
            return k + 1
        if c <= 32 or c == 47:
            k += 1
            continue
        value = np.uint64(0xCBF29CE484222325)
        start = k
        while k < n:
            c = data[k]
            if c <= 32 or c == 62 or c == 47 or (c == 61 and k > start):
                break
            if c >= 65 and c <= 90:
                c |= 32
            value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
            k += 1
        while k < n and data[k] <= 32:
            k += 1
        a = b = k
        if k < n and data[k] == 61:
            k += 1
            while k < n and data[k] <= 32:
                k += 1
            if k < n and (data[k] == 34 or data[k] == 39):
                quote = data[k]
                a = k + 1
                b = find_byte(data, a, quote)
                k = b + 1
            else:
                a = k
                while k < n and data[k] > 32 and data[k] != 62:
                    k += 1
                b = k
        what = look_up(attribute_keys, attribute_values, value)
        if what == 0:
            continue
        if what == 1:
            found[FLAG] |= _words(data, a, b, word_keys, word_values)
        elif what == 2:
            found[FLAG] |= look_up(role_keys, role_values, name_at(data[a:b], 0)[0])
        elif what == 3:
            if (
                _has(data, a, b, "display:none")
                or _has(data, a, b, "display: none")
                or _has(data, a, b, "visibility:hidden")
                or _has(data, a, b, "visibility: hidden")
            ):
                found[FLAG] |= m.HIDDEN
        elif what == 4:
            found[FLAG] |= m.HIDDEN
        elif what == 5:
            if _has(data, a, b, "articlebody"):
                found[FLAG] |= m.BODY
        elif what == 6:
            if _has(data, a, b, "math/tex"):
                found[TEX] = (2 if _has(data, a, b, "mode=display") else 1) + 4 * _has(data, a, b, "shown")
        elif what == 7:
            found[ALT], found[ALT_END] = a, b
        elif what == 8 and (
            _has(data, a, b, "latex.php")
            or _has(data, a, b, "codecogs")
            or _has(data, a, b, "/math/render/")
            or _has(data, a, b, "mathtex.cgi")
            or _has(data, a, b, "mimetex")
        ):
            found[FLAG] |= m.MATH
    return n


@numba.njit(nogil=True, cache=True)
def _has(data, a, b, needle):  # type: ignore[no-untyped-def]
    """Whether data[a:b], lower-cased, has an ASCII string in it; only the first 2,000 bytes are looked at."""
    size = len(needle)
    for i in range(a, min(b, a + 2000) - size + 1):
        hit = True
        for j in range(size):
            c = data[i + j]
            if c >= 65 and c <= 90:
                c |= 32
            if c != ord(needle[j]):
                hit = False
                break
        if hit:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _words(data, a, b, keys, values):  # type: ignore[no-untyped-def]
    """Flags of a class or id: of its tokens ('_' read as '-') and their words (parted by signs, digits, case)."""
    flags = 0
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    opening = (basis ^ np.uint64(61)) * prime
    token, word = opening, basis
    inside = False
    before_lower = False
    for i in range(a, b + 1):
        c = data[i] if i < b else np.uint8(32)
        upper = c >= 65 and c <= 90
        if upper:
            c |= 32
        alpha = c >= 97 and c <= 122
        if inside and (not alpha or (upper and before_lower)):
            flags |= look_up(keys, values, word)
            word = basis
            inside = False
        if alpha:
            word = (word ^ np.uint64(c)) * prime
            inside = True
        if c <= 32:
            if token != opening:
                flags |= look_up(keys, values, token)
            token = opening
        else:
            token = (token ^ np.uint64(45 if c == 95 else c)) * prime
        before_lower = bool(alpha and not upper)
    return flags
