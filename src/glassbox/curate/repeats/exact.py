"""Exact duplicates: documents with the same content key."""

import hashlib
import itertools
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import SPACE, character_tables, utf8_buffer
from glassbox.curate.repeats.sorting import Records, sorted_blocks
from glassbox.curate.words import code_point

_BLOCK = 1 << 16


def content_keys(texts: pa.Array, how: Literal["spaces", "normalised"]) -> NDArray[np.uint64]:
    """(documents,) large_string -> (documents, 2): 128 bits of the BLAKE2b hash of each text's plain form.

    spaces: runs of white space as one blank, none at the ends. normalised (dots.llm1, arXiv:2506.05767, app. C.2):
    first punctuation and symbols (Unicode categories P and S) are left out, the rest is decomposed (NFD) and
    lower-cased character by character; a text of which nothing is left counts as under `spaces`.
    """
    data, offsets = utf8_buffer(texts)
    plain, bounds = _plain_forms(data, offsets, how == "normalised")
    if how == "normalised":
        empty = np.flatnonzero(bounds[1:] == bounds[:-1])
    keys = np.empty((len(texts), 2), np.uint64)
    view = plain.data
    for d, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        keys[d] = np.frombuffer(hashlib.blake2b(view[start:end], digest_size=16).digest(), np.uint64)
    if how == "normalised" and len(empty):
        keys[empty] = content_keys(texts.take(pa.array(empty)), "spaces")
    return keys


def text_keys(texts: pa.Array) -> NDArray[np.uint64]:
    """(documents,) large_string -> (documents,): 64 bits of the BLAKE2b hash of each text as it is."""
    data, offsets = utf8_buffer(texts)
    bounds = itertools.pairwise(offsets.tolist())
    digests = [hashlib.blake2b(data.data[start:end], digest_size=8).digest() for start, end in bounds]
    return np.frombuffer(b"".join(digests), np.uint64)


def exact_copies(keys: NDArray[np.uint64], order: NDArray[np.int64], scratch: Path, memory: int) -> NDArray[np.int64]:
    """keys (documents, 2), and the documents to compare in order of priority -> for each document the earliest one in
    `order` with the same key, maybe itself; documents not in `order` stand for themselves. Keys may be memory-mapped.
    """
    first = np.arange(len(keys))
    last, earliest = np.zeros(2, np.uint64), -1
    for block in sorted_blocks(_records(keys, order), scratch, memory):
        begins = np.ones(len(block), bool)
        begins[1:] = (block[1:, :2] != block[:-1, :2]).any(1)
        begins[0] = earliest < 0 or (block[0, :2] != last).any()
        documents = order[block[:, 2].astype(np.int64)]
        heads = np.concatenate([[earliest], documents[begins]])
        first[documents] = heads[np.cumsum(begins)]
        last, earliest = block[-1, :2], heads[-1]
    return first


def _records(keys: NDArray[np.uint64], order: NDArray[np.int64]) -> Iterator[Records]:
    for start in range(0, len(order), _BLOCK):
        ranks = np.arange(start, min(start + _BLOCK, len(order)), dtype=np.uint64)
        yield np.column_stack([np.asarray(keys[order[start : start + _BLOCK]]), ranks])


def _plain_forms(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], normalised: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The plain forms in UTF-8, end to end, and their bounds."""
    size = int(offsets[-1] - offsets[0])
    bounds = np.zeros(len(offsets), np.int64)
    if not normalised:
        out = np.empty(size, np.uint8)
        _without_spaces(data, offsets, character_tables()[0], out, bounds)
        return out, bounds
    out = np.empty(3 * size + 4, np.uint8)  # the longest decompositions take three times the bytes
    longest = int(np.diff(offsets).max(initial=0))
    _normalise(data, offsets, *_decompositions(), np.empty(3 * longest + 4, np.int32), out, bounds)
    return out, bounds


@cache
def _decompositions() -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
    """For every code point: where its lower-cased decomposition begins in the second array (entries + 1; equal to the
    next for what is left out; white space is a blank); for every code point its combining class."""
    kinds, lower = character_tables()
    spaces, low = (kinds & SPACE).tolist(), lower.tolist()
    starts, flat = [0], []
    for point in range(0x110000):
        sign = chr(point)
        if spaces[point]:
            flat.append(32)
        elif unicodedata.category(sign)[0] not in "PS":
            flat += [low[ord(part)] for part in unicodedata.normalize("NFD", sign)]
        starts.append(len(flat))
    classes = np.fromiter((unicodedata.combining(chr(point)) for point in range(0x110000)), np.uint8, 0x110000)
    return np.array(starts, np.int32), np.array(flat, np.int32), classes


@numba.njit(nogil=True, cache=True)
def _without_spaces(data, offsets, kinds, out, bounds) -> None:  # type: ignore[no-untyped-def]
    count = 0
    for d in range(len(bounds) - 1):
        i, blank, begin = offsets[d], False, count
        while i < offsets[d + 1]:
            point, after = code_point(data, i)
            if kinds[point] & SPACE:
                blank = count > begin
            else:
                if blank:
                    out[count] = 32
                    count += 1
                    blank = False
                for k in range(i, after):
                    out[count] = data[k]
                    count += 1
            i = after
        bounds[d + 1] = count


@numba.njit(nogil=True, cache=True)
def _normalise(data, offsets, starts, flat, classes, points, out, bounds) -> None:  # type: ignore[no-untyped-def]
    count = 0
    for d in range(len(bounds) - 1):
        i, n, blank = offsets[d], 0, False
        marks, sorted_marks = 0, True
        while i < offsets[d + 1]:
            point, i = code_point(data, i)
            for k in range(starts[point], starts[point + 1]):
                part = flat[k]
                if part == 32:
                    blank = n > 0
                    continue
                if blank:
                    if not sorted_marks:
                        _reorder(points[n - marks : n], classes)
                    points[n] = 32
                    n, marks, sorted_marks, blank = n + 1, 0, True, False
                if classes[part]:
                    sorted_marks &= marks == 0 or classes[points[n - 1]] <= classes[part]
                    marks += 1
                else:
                    if not sorted_marks:
                        _reorder(points[n - marks : n], classes)
                    marks, sorted_marks = 0, True
                points[n] = part
                n += 1
        if not sorted_marks:
            _reorder(points[n - marks : n], classes)
        count = _encode(points[:n], out, count)
        bounds[d + 1] = count


@numba.njit(nogil=True, cache=True)
def _reorder(marks, classes) -> None:  # type: ignore[no-untyped-def]
    """Canonical order of combining marks: by class, else as they came."""
    ranks = np.empty(len(marks), np.int64)
    for i in range(len(marks)):
        ranks[i] = classes[marks[i]]
    marks[:] = marks[np.argsort(ranks, kind="mergesort")].copy()


@numba.njit(nogil=True, cache=True)
def _encode(points, out, count) -> int:  # type: ignore[no-untyped-def]
    for point in points:
        if point < 0x80:
            out[count] = point
            count += 1
        elif point < 0x800:
            out[count] = 0xC0 | point >> 6
            out[count + 1] = 0x80 | point & 0x3F
            count += 2
        elif point < 0x10000:
            out[count] = 0xE0 | point >> 12
            out[count + 1] = 0x80 | point >> 6 & 0x3F
            out[count + 2] = 0x80 | point & 0x3F
            count += 3
        else:
            out[count] = 0xF0 | point >> 18
            out[count + 1] = 0x80 | point >> 12 & 0x3F
            out[count + 2] = 0x80 | point >> 6 & 0x3F
            out[count + 3] = 0x80 | point & 0x3F
            count += 4
    return count
