"""Intervals cover what they promise, and equal textbook values."""

import math
import random

import pytest

from glassbox.evaluate.intervals import ratio, wilson


def test_wilson_equals_the_root_of_its_definition() -> None:
    """The bounds are the p at which |right/n - p| = z * sqrt(p (1 - p) / n)."""
    for right, n in ((0, 10), (3, 10), (150, 300), (299, 300), (300, 300)):
        for p in wilson(right, n, 0.95):
            if 1e-9 < p < 1 - 1e-9:
                assert abs(right / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-5)
    assert wilson(0, 10, 0.95)[0] == pytest.approx(0)
    assert wilson(10, 10, 0.95)[1] == pytest.approx(1)


def test_wilson_covers() -> None:
    rng, covered = random.Random(1), 0
    for _ in range(2000):
        low, high = wilson(sum(rng.random() < 0.3 for _ in range(100)), 100, 0.95)
        covered += low <= 0.3 <= high
    assert 0.93 < covered / 2000 < 0.97


def test_ratio_covers_and_is_exact_in_the_middle() -> None:
    rng, covered = random.Random(2), 0
    for _ in range(1000):
        bottoms = [rng.uniform(50, 150) for _ in range(60)]
        tops = [1.7 * bottom + rng.gauss(0, 0.2) * bottom for bottom in bottoms]
        value, low, high = ratio(tops, bottoms, 0.95)
        assert value == pytest.approx(sum(tops) / sum(bottoms))
        covered += low <= 1.7 <= high
    assert 0.92 < covered / 1000 < 0.98
    assert ratio([1.0], [2.0], 0.95) == (0.5, -math.inf, math.inf)
