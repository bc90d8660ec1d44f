"""The network of document classifiers, and how it is trained and applied: hashed word n-grams, averaged embeddings, a
linear layer (fastText's supervised mode, arXiv:1607.01759), by Adagrad with one step size a row.

A text's scores are `bias + output @ sum(value * embeddings[bucket])` over its features (`features.py`). Where
there are no more classes than dimensions the two matrices are multiplied once and for all: scoring is faster then.
Training is one thread and its order follows from the seed: the same texts give the same bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import character_tables, utf8_buffer
from glassbox.curate.models.features import read_features, read_words, scratch
from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_open, write_json
from glassbox.recipe.classify import ClassifierStage

Matrix = NDArray[np.float32]
STRETCH = 10_000
"""Texts between two looks at whether the user asked to stop."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. Several processes that load the same folder share its memory."""

    names: tuple[str, ...]
    """Its classes, or the names of its scores."""
    task: str
    """classes (scores are probabilities that add up to 1) or scores (numbers on the scale of the labels)."""
    ngram: int
    embeddings: Matrix
    """(buckets, width)."""
    output: Matrix | None
    """(names, width); None where it is already multiplied into the embeddings and width is the number of names."""
    bias: Matrix
    """(names,)."""
    scale: Matrix
    """(2, names): a score is scale[0] + scale[1] times what the network gives; for classes 0 and 1."""

    def score(self, texts: pa.Array) -> Matrix:
        """(texts, names) of large_string texts without nulls; a text without words gets what the bias alone says."""
        data, offsets = utf8_buffer(texts)
        kinds, lower = character_tables()
        longest = int(np.diff(offsets).max(initial=1))
        out = np.empty((len(texts), len(self.names)), np.float32)
        work = scratch(longest, self.ngram, len(self.embeddings))
        output = np.empty((0, 0), np.float32) if self.output is None else self.output
        arrays = self.embeddings, output, self.bias
        # All of it row by row in one kernel: a product of matrices would round differently in another batch.
        _score(data, offsets, kinds, lower, self.ngram, self.task == "classes", *work, *arrays, out)
        return out if self.task == "classes" else out * self.scale[1] + self.scale[0]

    def column(self, name: int) -> Matrix:
        """(buckets,) what a feature adds to one score, before the softmax."""
        return self.embeddings[:, name] if self.output is None else self.embeddings @ self.output[name]


def load(folder: Path) -> Classifier:
    """The classifier that a classifier stage left in `folder`."""
    try:
        facts = json.loads((folder / "classifier.json").read_bytes())
        embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "output.npz", allow_pickle=False) as arrays:
            return Classifier(
                tuple(facts["names"]),
                facts["task"],
                facts["ngram"],
                # As a plain array (still mapped from the file): the kernels are compiled for those.
                np.asarray(embeddings),
                arrays.get("output"),
                arrays["bias"],
                arrays["scale"],
            )
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{folder} holds no readable classifier ({error}); run its stage again") from error


def save(classifier: Classifier, folder: Path) -> None:
    """Leaves `embeddings.npy`, `output.npz` and `classifier.json`."""
    with atomic_open(folder / "embeddings.npy", "wb") as file:
        np.save(file, classifier.embeddings, allow_pickle=False)
    arrays = {"bias": classifier.bias, "scale": classifier.scale}
    if classifier.output is not None:
        arrays["output"] = classifier.output
    with atomic_open(folder / "output.npz", "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    facts = {"task": classifier.task, "ngram": classifier.ngram, "names": classifier.names}
    write_json(folder / "classifier.json", facts)


def train(
    texts: pa.Array,
    targets: Matrix,
    names: tuple[str, ...],
    config: ClassifierStage,
    seed: int,
    check: Callable[[int], None] | None = None,
) -> Classifier:
    """A classifier of large_string texts (n,) with targets (n, names): 1 for its class and 0, or scores, NaN for none.

    `check` is told how many texts are done, over all passes, and may raise.
    """
    data, offsets = utf8_buffer(texts)
    kinds, lower = character_tables()
    classes = config.task == "classes"
    scale = np.stack([np.zeros(len(names)), np.ones(len(names))])
    if not classes:
        scale = np.stack([np.nanmean(targets, 0), np.maximum(np.nanstd(targets, 0), 1e-6)])
    goals = ((targets - scale[0]) / scale[1]).astype(np.float32)
    rng = np.random.default_rng(seed)
    embeddings = np.zeros((config.buckets, config.dim), np.float32)
    output = (rng.standard_normal((len(names), config.dim)) / np.sqrt(config.dim)).astype(np.float32)
    bias = np.zeros(len(names), np.float32)
    # Sums of squared gradients, of each row of both matrices.
    squares = np.zeros(config.buckets, np.float32), np.ones(len(names), np.float32)
    work = scratch(int(np.diff(offsets).max(initial=1)), config.ngram, config.buckets)
    n, arrays = len(texts), (embeddings, output, bias, *squares)
    for epoch in range(config.epochs):
        order = rng.permutation(n)
        rates = config.lr * (1 - (epoch + np.arange(n) / n) / config.epochs)
        for start in range(0, n, STRETCH):
            done, part = epoch * n + start, slice(start, start + STRETCH)
            if check:
                check(done)
            _train(
                data, offsets, kinds, lower, config.ngram, goals, classes, order[part], rates[part], done + 1,
                *work, *arrays,
            )  # fmt: skip
    if len(names) <= config.dim:
        embeddings, folded = embeddings @ output.T, None
    else:
        folded = output
    return Classifier(names, config.task, config.ngram, embeddings, folded, bias, scale.astype(np.float32))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _score(  # type: ignore[no-untyped-def]
    data,
    offsets,
    kinds,
    lower,
    ngram,
    classes,
    points,
    words,
    places,
    seen,
    index,
    values,
    embeddings,
    output,
    bias,
    out,
) -> None:
    hidden = np.empty(embeddings.shape[1], np.float32)
    for d in range(len(out)):
        count = read_words(data, offsets[d], offsets[d + 1], kinds, lower, points, words, places)
        n = read_features(words, count, ngram, seen, d + 1, index, values)
        hidden[:] = 0
        for i in range(n):
            feature, value = embeddings[index[i]], values[i]
            for k in range(len(hidden)):
                hidden[k] += value * feature[k]
        row = out[d]
        for c in range(len(row)):
            row[c] = bias[c] + (_dot(output[c], hidden) if len(output) else hidden[c])
        if classes:
            row -= row.max()
            row[:] = np.exp(row)
            row /= row.sum()


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _train(  # type: ignore[no-untyped-def]
    data, offsets, kinds, lower, ngram, goals, classes, order, rates, stamp,
    points, words, places, seen, index, values, embeddings, output, bias, embedding_squares, output_squares,
) -> None:  # fmt: skip
    """One pass in the given order. Softmax and cross-entropy for classes, squared error for scores."""
    names, dim = output.shape
    hidden, pull, error = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(names, np.float32)
    tiny = np.float32(1e-6)
    for step in range(len(order)):
        d, rate = order[step], np.float32(rates[step])
        count = read_words(data, offsets[d], offsets[d + 1], kinds, lower, points, words, places)
        n = read_features(words, count, ngram, seen, stamp + step, index, values)
        hidden[:] = 0
        for i in range(n):
            feature, value = embeddings[index[i]], values[i]
            for k in range(dim):
                hidden[k] += value * feature[k]
        for c in range(names):
            error[c] = bias[c] + _dot(output[c], hidden)
        if classes:
            error -= error.max()
            error[:] = np.exp(error)
            error /= error.sum()
        pull[:] = 0
        length = _dot(hidden, hidden) / np.float32(dim)
        for c in range(names):
            slope = error[c] - goals[d, c]
            if np.isnan(slope):  # this text has no such score
                continue
            row = output[c]
            output_squares[c] += slope * slope * length
            move = rate * slope / np.sqrt(output_squares[c])
            for k in range(dim):
                pull[k] += slope * row[k]
                row[k] -= move * hidden[k]
            bias[c] -= np.float32(0.1) * rate * slope
        length = _dot(pull, pull) / np.float32(dim)
        for i in range(n):
            b, value = index[i], values[i]
            embedding_squares[b] += length * value * value
            move = rate * value / np.sqrt(embedding_squares[b] + tiny)
            row = embeddings[b]
            for k in range(dim):
                row[k] -= move * pull[k]
