"""Held-out figures against definitions written out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.curate.models.measures import auc, calibration, of_classes, of_scores


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=25))
def test_auc_is_the_chance_of_a_right_order(rows):
    ups, downs = [s for s, up in rows if up], [s for s, up in rows if not up]
    found = auc(np.array([s for s, _ in rows], float), np.array([up for _, up in rows]))
    if not ups or not downs:
        assert found is None
        return
    wins = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(ups, downs))
    assert found == pytest.approx(wins / (len(ups) * len(downs)), abs=1e-4)


def test_classes_by_hand():
    scores = np.array([[0.8, 0.1, 0.1], [0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.9, 0.1, 0.0]])
    found = of_classes(scores, np.array([0, 1, 1, 0]), ("a", "b", "c"))
    assert found["accuracy"] == 0.75
    assert found["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found["classes"]["a"] == {"texts": 2, "precision": 0.6667, "recall": 1.0, "f1": 0.8, "auc": 1.0}
    assert found["classes"]["b"]["f1"] == 0.6667
    assert found["classes"]["c"] == {"texts": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "auc": None}
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-4)


def test_calibration_by_hand():
    found = calibration(np.array([0.95, 1.0, 0.55, 0.5]), np.array([True, True, False, True]))
    assert found["calibration"] == [
        {"texts": 2, "probability": 0.525, "right": 0.5},
        {"texts": 2, "probability": 0.975, "right": 1.0},
    ]
    assert found["calibration_error"] == 0.025


def test_scores_by_hand():
    truth = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0]])
    found = of_scores(np.array([[2.0, 0.0], [3.0, 0.0], [4.0, 1.0]]), truth, ("depth", "style"))["scores"]
    assert found["depth"] == {
        "texts": 3, "mean_absolute_error": 0.6667, "error_of_the_mean": 1.3333, "correlation": 1.0
    }  # fmt: skip
    assert found["style"] == {
        "texts": 1, "mean_absolute_error": 1.0, "error_of_the_mean": 0.0, "correlation": None
    }  # fmt: skip
