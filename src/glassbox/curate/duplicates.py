"""Exact duplicates by hash; near duplicates by MinHash, banding, and a check of whole signatures.

A signature holds, for each of P hash functions, the smallest hash of a document's shingles; two documents agree in a
slot with the probability of their Jaccard similarity J, so the share of agreeing slots estimates J with variance
J(1 - J)/P (Broder 1997). Documents that agree in all rows of one band are compared. Documents come in the order of
priority: of duplicates the one with the smallest index stays.
"""

import hashlib

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import mix
from glassbox.recipe.curation import NearDuplicates

EMPTY = np.uint32(0xFFFFFFFF)


def content_key(text: str) -> bytes:
    """16 bytes that two texts share if they are equal in all but white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def exact_copies(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """keys (documents, 2) -> for each document the index of the first one with the same key, maybe its own."""
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64)


def signatures(grams: NDArray[np.uint64], bounds: NDArray[np.int64], permutations: int) -> NDArray[np.uint32]:
    """Shingle hashes and their bounds -> (documents, permutations) MinHash signatures; all EMPTY without shingles.

    Hash functions are multiply-shift, (a (h >> 32) + b) >> 32 modulo 2^64, with a odd (Dietzfelbinger et al. 1997).
    """
    index = np.arange(1, 2 * permutations + 1, dtype=np.uint64)
    random = np.array([mix(value) for value in index], np.uint64)
    out = np.full((len(bounds) - 1, permutations), EMPTY, np.uint32)
    _minima(grams, bounds, random[::2] | np.uint64(1), random[1::2], out)
    return out


def near_copies(
    table: NDArray[np.uint32], alive: NDArray[np.int64], settings: NearDuplicates
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each document the kept document it repeats (its own index if it is kept) and their estimated similarity.

    `table` (documents, permutations) may be memory-mapped; `alive` are the documents to compare, in priority order. One
    band at a time is sorted, so memory is some tens of bytes a document. Union-find joins pairs that agree in enough
    slots; inside a group each document is then held against the documents kept so far, so that no chain of neighbours
    drops a document that is unlike all that stay.
    """
    # A document without a single word has nothing to compare (a shingle hashes to EMPTY once in four billion).
    alive = alive[np.asarray(table[:, 0])[alive] != EMPTY]
    needed = int(np.ceil(settings.threshold * settings.permutations - 1e-9))
    parent = np.arange(len(alive))
    keys = np.empty(len(alive), np.uint64)
    for band in range(settings.bands):
        _band_keys(table, alive, band * settings.rows, settings.rows, keys)
        _link(table, alive, keys, np.argsort(keys, kind="stable"), needed, parent)
    root = _roots(parent)
    order = np.argsort(root, kind="stable")
    kept = np.arange(len(table))
    similarity = np.zeros(len(table), np.float32)
    _keep(table, alive, root, order, needed, kept, similarity)
    return kept, similarity


@numba.njit(nogil=True, cache=True)
def _minima(grams, bounds, a, b, out) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(out)):
        row = out[d]
        for i in range(bounds[d], bounds[d + 1]):
            high = grams[i] >> np.uint64(32)
            for k in range(len(a)):
                value = np.uint32((a[k] * high + b[k]) >> np.uint64(32))
                row[k] = min(row[k], value)


@numba.njit(nogil=True, cache=True)
def _band_keys(table, alive, first, rows, keys) -> None:  # type: ignore[no-untyped-def]
    for i in range(len(alive)):
        value = np.uint64(first)
        for k in range(first, first + rows):
            value = mix(value ^ np.uint64(table[alive[i], k])) + np.uint64(0x9E3779B97F4A7C15)
        keys[i] = value


@numba.njit(nogil=True, cache=True)
def _agreement(table, one, other) -> int:  # type: ignore[no-untyped-def]
    count = 0
    for k in range(table.shape[1]):
        count += table[one, k] == table[other, k]
    return count


@numba.njit(nogil=True, cache=True)
def _root(parent, i) -> int:  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(nogil=True, cache=True)
def _link(table, alive, keys, order, needed, parent) -> None:  # type: ignore[no-untyped-def]
    """Joins each document of a bucket with the bucket's first: a star, never all pairs."""
    head = 0
    for place in range(1, len(order)):
        if keys[order[place]] != keys[order[head]]:
            head = place
            continue
        one, other = _root(parent, order[head]), _root(parent, order[place])
        if one != other and _agreement(table, alive[order[head]], alive[order[place]]) >= needed:
            parent[max(one, other)] = min(one, other)


@numba.njit(nogil=True, cache=True)
def _roots(parent):  # type: ignore[no-untyped-def]
    out = np.empty_like(parent)
    for i in range(len(parent)):
        out[i] = _root(parent, i)
    return out


@numba.njit(nogil=True, cache=True)
def _keep(table, alive, root, order, needed, kept, similarity) -> None:  # type: ignore[no-untyped-def]
    """Within each group, in priority order: a document goes if it is like one that stays, else it stays."""
    start = 0
    stays = np.empty(len(order), np.int64)
    while start < len(order):
        end = start
        while end < len(order) and root[order[end]] == root[order[start]]:
            end += 1
        count = 0
        for place in range(start, end):
            document, best, most = alive[order[place]], -1, needed - 1
            for s in range(count):
                agree = _agreement(table, stays[s], document)
                if agree > most:
                    best, most = stays[s], agree
            if best < 0:
                stays[count] = document
                count += 1
            else:
                kept[document] = best
                similarity[document] = most / table.shape[1]
        start = end
