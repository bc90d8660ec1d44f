"""Documents alike in meaning: embeddings, clusters, cosine inside a cluster (SemDeDup, arXiv:2303.09540).

Of two documents of a cluster that are alike the earlier one in the order of priority stays. All is reckoned in places
of that order and in blocks of fixed size, so that neither the numbering of documents nor the memory decides anything.
"""

from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.repeats.embedding import WIDTH, encoder_vectors, encoder_width, word_vectors
from glassbox.recipe.duplicates import SemanticDuplicates

__all__ = ["WIDTH", "embed", "semantic_copies", "width"]

SAMPLE = 64
"""Documents a cluster that k-means learns from."""
ROUNDS = 10
_BLOCK = 1024
_SLACK = 1e-6
"""Two equal vectors of 32-bit numbers have a cosine as much below 1."""


def width(settings: SemanticDuplicates) -> int:
    """Numbers of an embedding."""
    return WIDTH if settings.embedding == "tfidf" else encoder_width(settings.embedding)


def embed(texts: pa.Array, settings: SemanticDuplicates) -> NDArray[np.float32]:
    """(documents,) large_string -> (documents, width) embeddings of length 1; zeros for a text without words."""
    return word_vectors(texts) if settings.embedding == "tfidf" else encoder_vectors(texts, settings.embedding)


def semantic_copies(
    table: NDArray[np.float32],
    order: NDArray[np.int64],
    settings: SemanticDuplicates,
    seed: int,
    scratch: Path,
    memory: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each document the kept one of its cluster that it repeats (its own number if it is kept), and their cosine.

    `table` (documents, width) may be memory-mapped; `order` are the documents in order of priority. Held at a time are
    the sample (64 rows of the table for each cluster), the centres, and some 30 bytes a document, whatever `memory`;
    `scratch` is not used. n documents in k clusters take about n^2 width / k multiplications.
    """
    kept, similarity = np.arange(len(table)), np.zeros(len(table), np.float32)
    count = min(settings.clusters or max(round(len(order) ** 0.5), 1), max(len(order), 1))
    cluster = _clusters(table, order, count, seed)
    by_cluster = np.argsort(cluster, kind="stable")
    edges = np.searchsorted(cluster[by_cluster], np.arange(count + 1))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end - start > 1:
            _keep_unlike(table, order[by_cluster[start:end]], settings.threshold - _SLACK, kept, similarity)
    return kept, similarity


def _clusters(table: NDArray[np.float32], order: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int32]:
    """Spherical k-means on a sample -> the nearest centre of every document of `order`."""
    if count == 1:
        return np.zeros(len(order), np.int32)
    drawn = np.random.default_rng(seed).permutation(len(order))[: SAMPLE * count]
    sample = np.asarray(table[order[drawn]])
    centres = sample[:count].copy()
    for _ in range(ROUNDS):
        nearest = np.concatenate([_nearest(rows, centres) for rows in _blocks(sample)])
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-30), centres)
    return np.concatenate([_nearest(np.asarray(table[some]), centres) for some in _blocks(order)])


def _blocks(rows: NDArray) -> list[NDArray]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]


def _nearest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.argmax(rows @ centres.T, axis=1).astype(np.int32)


def _keep_unlike(
    table: NDArray[np.float32],
    members: NDArray[np.int64],
    threshold: float,
    kept: NDArray[np.int64],
    similarity: NDArray[np.float32],
) -> None:
    """One cluster, in order of priority: a document goes if it is like one that stays, else it stays."""
    stays = np.empty(len(members), np.int64)
    count = 0
    for block in _blocks(members):
        rows = np.asarray(table[block])
        best, most = np.full(len(block), -1), np.full(len(block), threshold, np.float32)
        for others in _blocks(stays[:count]):
            cosine = rows @ np.asarray(table[others]).T
            nearest = cosine.argmax(1)
            closer = cosine[np.arange(len(block)), nearest] > most
            best[closer], most[closer] = others[nearest[closer]], cosine[closer, nearest[closer]]
        count = _within(rows @ rows.T, block, best, most, stays, count)
        gone = best >= 0
        kept[block[gone]], similarity[block[gone]] = best[gone], np.minimum(most[gone], 1)


@numba.njit(nogil=True, cache=True)
def _within(cosine, block, best, most, stays, count) -> int:  # type: ignore[no-untyped-def]
    """Inside a block, for documents unlike all kept before it; returns how many are kept now."""
    first = count
    place = np.empty(len(block), np.int64)
    for i in range(len(block)):
        if best[i] >= 0:
            continue
        for k in range(count - first):
            if cosine[i, place[k]] > most[i]:
                best[i], most[i] = block[place[k]], cosine[i, place[k]]
        if best[i] < 0:
            place[count - first] = i
            stays[count] = block[i]
            count += 1
    return count
