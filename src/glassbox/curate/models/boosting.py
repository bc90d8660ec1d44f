"""Gradient-boosted trees for yes and no, trained and applied by kernels; stored as plain arrays.

Trees are complete, of one depth: a node that is not split sends everything left. Features are binned at quantiles for
training (histograms of gradients, second-order gain, after XGBoost, arXiv:1603.02754, section 2.2); what comes out has
thresholds in the features' own units. One thread, no randomness: the same data give the same trees.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.ledger.writing import atomic_open

DEPTH = 5
RATE = 0.08
"""Share of each tree's step that is taken."""
BINS = 64
RIDGE = 12.0
"""Added to the second derivatives of a leaf: keeps small leaves near 0."""
LEAST_WEIGHT = 5.0
"""Smallest sum of second derivatives in a leaf."""


class Trees(NamedTuple):
    """Trees of depth d over rows of features; a node's children are 2 i + 1 and 2 i + 2."""

    feature: NDArray[np.int16]
    """(trees, 2^d - 1)."""
    threshold: NDArray[np.float32]
    """(trees, 2^d - 1): a row goes right if its feature is above; infinite where there is no split."""
    leaf: NDArray[np.float32]
    """(trees, 2^d), in log odds."""
    bias: NDArray[np.float32]
    """(1,): log odds without any tree."""

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, features) -> probabilities (rows,)."""
        odds = np.full(len(features), self.bias[0], np.float32)
        _apply(np.ascontiguousarray(features), self.feature, self.threshold, self.leaf, odds)
        return (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)

    def save(self, path: Path) -> None:
        with atomic_open(path, "wb") as file:
            np.savez(file, **self._asdict())

    @staticmethod
    def load(path: Path) -> "Trees":
        with np.load(path, allow_pickle=False) as arrays:
            return Trees(*(arrays[name] for name in Trees._fields))


def train(
    features: NDArray[np.float32],
    labels: NDArray[np.bool_],
    trees: int,
    done: Callable[[int], None] | None = None,
) -> Trees:
    """Trees for (rows, features), labels (rows,); `done` is called with the number of each tree."""
    edges = _edges(features)
    bins = np.empty(features.shape, np.uint8)
    for column in range(features.shape[1]):
        bins[:, column] = np.searchsorted(edges[column], features[:, column], side="left")
    share = float(np.clip(labels.mean(), 1e-6, 1 - 1e-6))
    bias = np.float32(np.log(share / (1 - share)))
    nodes = (1 << DEPTH) - 1
    feature = np.zeros((trees, nodes), np.int16)
    cut = np.zeros((trees, nodes), np.int64)
    leaf = np.zeros((trees, nodes + 1), np.float32)
    odds = np.full(len(labels), bias, np.float64)
    for tree in range(trees):
        chance = 1.0 / (1.0 + np.exp(-odds))
        slope, bend = chance - labels, chance * (1 - chance)
        _grow(bins, slope, bend, feature[tree], cut[tree], leaf[tree], odds)
        if done:
            done(tree + 1)
    threshold = np.full(feature.shape, np.inf, np.float32)
    for column in range(features.shape[1]):
        split = (feature == column) & (cut < len(edges[column]))
        threshold[split] = edges[column][cut[split]]
    return Trees(feature, threshold, leaf, np.array([bias], np.float32))


def _edges(features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Of every feature the values at most BINS - 1 that part it into bins: bin b is above edge b - 1, up to edge b."""
    found = []
    for column in range(features.shape[1]):
        values = np.unique(features[:, column])
        if len(values) > BINS:
            values = np.unique(np.quantile(features[:, column], np.linspace(0, 1, BINS + 1)[1:], method="lower"))
        found.append(values[:-1])
    return found


@numba.njit(nogil=True, cache=True)
def _apply(features, feature, threshold, leaf, odds) -> None:  # type: ignore[no-untyped-def]
    nodes = feature.shape[1]
    for row in range(len(features)):
        summed = odds[row]
        for tree in range(len(feature)):
            node = 0
            while node < nodes:
                node = 2 * node + 1 + (features[row, feature[tree, node]] > threshold[tree, node])
            summed += leaf[tree, node - nodes]
        odds[row] = summed


@numba.njit(nogil=True, cache=True)
def _grow(bins, slope, bend, feature, cut, leaf, odds) -> None:  # type: ignore[no-untyped-def]
    """Grows one tree level by level and adds its leaves to the rows' odds."""
    rows, columns = bins.shape
    place = np.zeros(rows, np.int64)
    cut[:] = BINS
    for level in range(DEPTH):
        first, width = (1 << level) - 1, 1 << level
        sums = np.zeros((width, columns, BINS, 2))
        for row in range(rows):
            here = sums[place[row] - first]
            for column in range(columns):
                here[column, bins[row, column], 0] += slope[row]
                here[column, bins[row, column], 1] += bend[row]
        for node in range(width):
            all_slope, all_bend = sums[node, 0, :, 0].sum(), sums[node, 0, :, 1].sum()
            base = all_slope * all_slope / (all_bend + RIDGE)
            best = 1e-6
            for column in range(columns):
                left_slope = left_bend = 0.0
                for b in range(BINS - 1):
                    left_slope += sums[node, column, b, 0]
                    left_bend += sums[node, column, b, 1]
                    right_bend = all_bend - left_bend
                    if left_bend < LEAST_WEIGHT or right_bend < LEAST_WEIGHT:
                        continue
                    right_slope = all_slope - left_slope
                    gain = (
                        left_slope * left_slope / (left_bend + RIDGE)
                        + right_slope * right_slope / (right_bend + RIDGE)
                        - base
                    )
                    if gain > best:
                        best = gain
                        feature[first + node], cut[first + node] = column, b
        for row in range(rows):
            node = place[row]
            place[row] = 2 * node + 1 + (bins[row, feature[node]] > cut[node])
    leaves = (1 << DEPTH) - 1
    totals = np.zeros((leaves + 1, 2))
    for row in range(rows):
        totals[place[row] - leaves, 0] += slope[row]
        totals[place[row] - leaves, 1] += bend[row]
    for k in range(leaves + 1):
        leaf[k] = -RATE * totals[k, 0] / (totals[k, 1] + RIDGE)
    for row in range(rows):
        odds[row] += leaf[place[row] - leaves]
