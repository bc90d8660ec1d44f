"""Factors hit their targets within their bounds, whatever the documents; copies follow from id and seed alone."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from glassbox.curate.models.sampling import copies, factors, true_masses
from glassbox.errors import RequestError
from glassbox.recipe.classify import Sampling, ScoreWeight

NAMES = ("science", "news", "adverts")


def ids(n):
    return np.array([hashlib.md5(str(i).encode()).hexdigest() for i in range(n)], "S32")


def shares(sizes, categories, out):
    masses = np.bincount(categories + 1, sizes * out, len(NAMES) + 1)
    return masses[1:] / masses.sum()


def test_targets_are_hit_and_the_others_keep_their_proportions():
    rng = np.random.default_rng(1)
    sizes, categories = rng.integers(1, 5000, 3000), rng.choice(3, 3000, p=[0.2, 0.5, 0.3])
    out = factors(sizes, categories, NAMES, {}, Sampling(category="c", targets={"science": 0.5}))
    before, after = shares(sizes, categories, np.ones(3000)), shares(sizes, categories, out)
    assert after[0] == pytest.approx(0.5)
    assert after[1] / after[2] == pytest.approx(before[1] / before[2])
    assert (sizes * out).sum() == pytest.approx(sizes.sum())


def test_what_a_bound_takes_goes_to_the_others():
    sizes, categories = np.full(100, 10), np.repeat([0, 1, 2], [5, 45, 50])
    plan = Sampling(category="c", targets={"science": 0.5, "news": 0.3, "adverts": 0.2}, most=2.0)
    out = factors(sizes, categories, NAMES, {}, plan)
    assert out[0] == 2.0  # 10 times its share is wanted
    after = shares(sizes, categories, out)
    assert after[0] == pytest.approx(0.1)
    assert after[1] / after[2] == pytest.approx(1.5)
    assert out.sum() == pytest.approx(100)


def test_weights_are_factors_as_given():
    categories = np.array([-1, 0, 1, 2])
    out = factors(
        np.ones(4, np.int64), categories, NAMES, {}, Sampling(category="c", weights={"science": 3, "news": 0})
    )
    assert out.tolist() == [1.0, 3.0, 0.1, 1.0]
    out = factors(np.ones(4, np.int64), categories, NAMES, {}, Sampling(category="c", weights={"news": 0}, least=0))
    assert out.tolist() == [1.0, 1.0, 0.0, 1.0]


def test_scores_weigh_by_powers_of_two():
    plan = Sampling(scores=(ScoreWeight(stage="q", score="depth", centre=2, slope=0.5),))
    depth = np.array([0.0, 2.0, 4.0, 50.0, -50.0, np.nan])
    out = factors(np.ones(6, np.int64), None, (), {"q.depth": depth}, plan)
    assert out.tolist() == [0.5, 1.0, 2.0, 4.0, 0.1, 1.0]


def test_a_category_that_the_classifier_does_not_know_is_named():
    with pytest.raises(RequestError, match=r"'sport' is no category.*science, news, adverts"):
        factors(np.ones(1, np.int64), np.zeros(1, int), NAMES, {}, Sampling(category="c", targets={"sport": 0.1}))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"targets": {"a": 0.7, "b": 0.4}}, "add up to 1.1"),
        ({"targets": {"a": 0.7}, "weights": {"a": 1}}, "a target and a weight"),
        ({"least": 3, "most": 2}, "is more than most"),
        ({"budget": 9}, "cannot be met"),
        ({"category": "", "weights": {"a": 1}}, "need `category`"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        Sampling(**{"category": "c", **wrong})


def rounds(masses, shares, most):
    """The reference: factors to targets; what is above the bound is given back in proportion, until nothing is."""
    budget, got, open_ = masses.sum(), np.zeros(len(masses)), (shares > 0) & (masses > 0)
    got = np.where(open_, shares, 0) * (budget / shares[open_].sum())
    while (over := open_ & (got > most * masses * (1 + 1e-12))).any():
        got[over] = most * masses[over]
        open_ &= ~over
        left = budget - got[~open_].sum()
        if not open_.any():
            return got
        got[open_] = shares[open_] * (left / shares[open_].sum())
    return got


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 20)), min_size=3, max_size=3), st.floats(1.5, 8))
def test_targets_are_met_as_by_the_rounds_of_the_reference(rows, most):
    masses, parts = np.array([m for m, _ in rows]), np.array([p for _, p in rows], float)
    if not ((masses > 0) & (parts > 0)).any():
        return
    shares = parts / parts.sum()
    sizes = np.repeat(masses, 2)
    plan = Sampling(category="c", targets=dict(zip(NAMES, shares, strict=True)), least=0, most=most)
    out = factors(sizes, np.repeat(np.arange(3), 2), NAMES, {}, plan)
    found = np.bincount(np.repeat(np.arange(3), 2), sizes * out, 3)
    assert found == pytest.approx(rounds(2 * masses, shares, most), rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(st.data())
def test_bounds_hold_and_the_budget_is_met(data):
    n = data.draw(st.integers(1, 40))
    sizes = data.draw(arrays.arrays(np.int64, n, elements=st.integers(0, 10_000)))
    categories = data.draw(arrays.arrays(np.int64, n, elements=st.integers(-1, 2)))
    depth = data.draw(arrays.arrays(np.float64, n, elements=st.floats(-10, 10)))
    targets = data.draw(st.dictionaries(st.sampled_from(NAMES[:2]), st.floats(0, 0.5)))
    weights = data.draw(st.dictionaries(st.sampled_from(NAMES[2:]), st.floats(0.01, 5)))
    budget = data.draw(st.none() | st.floats(0.3, 2.9))
    scores = (ScoreWeight(stage="q", score="depth"),) if data.draw(st.booleans()) else ()
    plan = Sampling(category="c", targets=targets, weights=weights, budget=budget, least=0.2, most=3, scores=scores)
    out = factors(sizes, categories, NAMES, {"q.depth": depth}, plan)
    assert out.shape == (n,)
    assert ((out >= 0.2) & (out <= 3)).all()
    if budget is not None and not targets:
        assert (sizes * out).sum() == pytest.approx(budget * sizes.sum(), rel=1e-6)
    order = np.random.default_rng(n).permutation(n)
    shuffled = factors(sizes[order], categories[order], NAMES, {"q.depth": depth[order]}, plan)
    assert shuffled == pytest.approx(out[order], rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**64 - 1), st.floats(0, 5))
def test_copies_are_the_factor_on_average_and_its_neighbours_each(seed, factor):
    names = ids(2000)
    out = copies(names, np.full(2000, factor), seed)
    assert set(out.tolist()) <= {int(factor), int(factor) + 1}
    assert out.mean() == pytest.approx(factor, abs=0.06)
    order = np.random.default_rng(0).permutation(2000)
    assert (copies(names[order], np.full(2000, factor), seed) == out[order]).all()


def test_copies_of_a_larger_factor_contain_those_of_a_smaller():
    names = ids(500)
    few, many = copies(names, np.full(500, 0.3), 7), copies(names, np.full(500, 0.6), 7)
    assert (few <= many).all()
    assert (copies(names, np.full(500, 0.3), 8) != few).any()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_true_masses_undo_the_confusion(seed, k):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 20, (k, k)) + np.eye(k) * 100
    masses = rng.uniform(0, 1000, k)
    predicted = (confusion / confusion.sum(1, keepdims=True)).T @ masses
    assert true_masses(confusion, predicted) == pytest.approx(masses, rel=1e-4, abs=1e-3)


def test_true_masses_are_never_negative():
    confusion = np.array([[80.0, 20.0, 0.0], [20.0, 80.0, 0.0], [0.0, 0.0, 0.0]])
    found = true_masses(confusion, np.array([990.0, 10.0, 5.0]))
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1005)
    assert found[1] < 1
    assert found[2] == pytest.approx(5)
