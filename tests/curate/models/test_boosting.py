"""Gradient-boosted trees: what they can learn, against another implementation, and that they are plain arrays."""

from pathlib import Path

import numpy as np
import pytest

from glassbox.curate.models.boosting import DEPTH, Trees, train
from glassbox.curate.models.measures import auc


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels that no single feature tells."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 8)).astype(np.float32)
    odds = 3 * features[:, 0] * features[:, 1] + 2 * (features[:, 2] > 0.5) - features[:, 3] - 0.5
    return features, random.random(count) < 1 / (1 + np.exp(-odds))


def test_trees_learn_as_well_as_another_implementation() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    features, labels = rows(4000, 0)
    asked, truth = rows(4000, 1)
    ours = auc(train(features, labels, 150).score(asked), truth)
    other = ensemble.HistGradientBoostingClassifier(max_iter=150, max_depth=DEPTH, learning_rate=0.08)
    theirs = auc(other.fit(features, labels).predict_proba(asked)[:, 1], truth)
    assert ours is not None
    assert theirs is not None
    assert ours > theirs - 0.01
    assert ours > 0.85


def test_probabilities_mean_what_they_say() -> None:
    features, labels = rows(20_000, 2)
    scores = train(features, labels, 250).score(rows(20_000, 3)[0])
    truth = rows(20_000, 3)[1]
    for low in (0.05, 0.25, 0.45, 0.65):
        chosen = (scores >= low) & (scores < low + 0.2)
        assert truth[chosen].mean() == pytest.approx(scores[chosen].mean(), abs=0.06)


def test_the_same_data_give_the_same_trees_and_files(tmp_path: Path) -> None:
    features, labels = rows(500, 4)
    for name in ("a", "b"):
        train(features, labels, 10).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(Trees.load(tmp_path / "a").score(features), train(features, labels, 10).score(features))


def test_data_that_cannot_be_split_give_the_share() -> None:
    features, labels = np.ones((50, 3), np.float32), np.arange(50) < 10
    assert train(features, labels, 5).score(features) == pytest.approx(0.2, abs=1e-5)
