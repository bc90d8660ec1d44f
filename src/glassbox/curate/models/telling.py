"""Which n-grams tell a class: those that add most to its score over the texts that have it, as strings."""

from collections import Counter, defaultdict

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import character_tables, utf8_buffer
from glassbox.curate.models.classify import Classifier
from glassbox.curate.models.features import bucket_of, read_features, read_words, scratch

SHOWN = 15
"""n-grams of a class."""
LOOKED_AT = 300
"""Texts of a class that are searched for the strings behind the buckets."""


def telling_ngrams(classifier: Classifier, texts: pa.Array, has: NDArray[np.bool_]) -> dict[str, list[str]]:
    """For each class (or score) the n-grams that speak for it most, the strongest first.

    `has` (texts, names) says which texts have it. A class's score is taken against the mean of all classes. Different
    n-grams may share a bucket; the one that is commonest there is shown.
    """
    mean = np.zeros(len(classifier.embeddings), np.float32)
    if classifier.task == "classes":
        matrix = classifier.embeddings
        mean = matrix.mean(1) if classifier.output is None else matrix @ classifier.output.mean(0)
    found = {}
    for c, name in enumerate(classifier.names):
        chosen = texts.filter(pa.array(has[:, c]))
        adds = _usage(classifier, chosen) * (classifier.column(c) - mean)
        best = np.argsort(-adds, kind="stable")[:SHOWN]
        strings = _strings(classifier, chosen.slice(0, LOOKED_AT), best[adds[best] > 0])
        found[name] = [strings[bucket] for bucket in best.tolist() if bucket in strings]
    return found


def _usage(classifier: Classifier, texts: pa.Array) -> NDArray[np.float64]:
    """(buckets,) summed values of the features of all texts."""
    data, offsets = utf8_buffer(texts)
    out = np.zeros(len(classifier.embeddings))
    work = scratch(int(np.diff(offsets).max(initial=1)), classifier.ngram, len(out))
    _sum_values(data, offsets, *character_tables(), classifier.ngram, *work, out)
    return out


def _strings(classifier: Classifier, texts: pa.Array, buckets: NDArray[np.int64]) -> dict[int, str]:
    """The commonest n-gram of each bucket."""
    data, offsets = utf8_buffer(texts)
    work = scratch(int(np.diff(offsets).max(initial=1)), classifier.ngram, len(classifier.embeddings))
    points, words, places = work[:3]
    wanted = np.zeros(len(classifier.embeddings), np.bool_)
    wanted[buckets] = True
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    kinds, lower = character_tables()
    for d, text in enumerate(texts.to_pylist()):
        count = read_words(data, offsets[d], offsets[d + 1], kinds, lower, points, words, places)
        for bucket, start, end in _places(words, places, count, classifier.ngram, wanted):
            counts[bucket][" ".join(text[start:end].lower().split())] += 1
    return {bucket: found.most_common(1)[0][0] for bucket, found in counts.items()}


@numba.njit(nogil=True, cache=True)
def _sum_values(  # type: ignore[no-untyped-def]
    data, offsets, kinds, lower, ngram, points, words, places, seen, index, values, out
) -> None:
    for d in range(len(offsets) - 1):
        count = read_words(data, offsets[d], offsets[d + 1], kinds, lower, points, words, places)
        n = read_features(words, count, ngram, seen, d + 1, index, values)
        for i in range(n):
            out[index[i]] += values[i]


@numba.njit(nogil=True, cache=True)
def _places(words, places, count, ngram, wanted):  # type: ignore[no-untyped-def]
    """(bucket, first character, one past the last) of the n-grams whose bucket is wanted."""
    found = [(0, 0, 0) for _ in range(0)]
    base = np.uint64(0x9E3779B97F4A7C15)
    for i in range(count):
        value = np.uint64(0)
        for j in range(i, min(i + ngram, count)):
            value = value * base + words[j]
            bucket = bucket_of(value, len(wanted))
            if wanted[bucket]:
                found.append((int(bucket), int(places[i]), int(places[j + 1])))
    return found
