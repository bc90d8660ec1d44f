"""The data order: fixed values that may never change, bijections, exact mixtures, and no correlation with the index."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.tokens.order import BLOCK, Mixture, data_step, permute, round_keys


def test_golden_values():
    """Written down once: a change here changes what every recorded run has read."""
    assert round_keys(1, "golden")[:2] == (GOLDEN_KEY_0, GOLDEN_KEY_1)
    assert permute(np.arange(10), 10, round_keys(1, "golden")).tolist() == GOLDEN_10
    assert permute(np.arange(6), 1_000_003, round_keys(7, "golden")).tolist() == GOLDEN_1000003
    assert permute(np.array([0, 2**40 - 1]), 2**40, round_keys(7, "golden")).tolist() == GOLDEN_40_BITS
    mixture = Mixture({"web": 0.7, "code": 0.3}, rows=10**10, seed=1, purpose="phase 0")
    assert drawn(mixture, (0, 1, 2, 1023, 1024, 10**9)) == GOLDEN_ROWS


def drawn(mixture, rows):
    """(source, draw) of each row."""
    sources, draws = mixture.draws(np.array(rows, np.int64))
    return [(mixture.sources[source], draw) for source, draw in zip(sources.tolist(), draws.tolist(), strict=True)]


GOLDEN_KEY_0, GOLDEN_KEY_1 = 2381100051892844216, 12611025553538734437
GOLDEN_10 = [6, 5, 4, 3, 8, 1, 0, 7, 2, 9]
GOLDEN_1000003 = [762173, 125162, 940832, 879166, 778120, 188268]
GOLDEN_40_BITS = [238622987586, 911783683615]
GOLDEN_ROWS = [("web", 239), ("code", 114), ("web", 46), ("web", 306), ("code", 365), ("code", 299999887)]


@given(st.integers(1, 3000), st.integers(), st.text(max_size=5))
def test_permutation_is_a_bijection(n, seed, purpose):
    keys = round_keys(seed, purpose)
    images = permute(np.arange(n), n, keys)
    assert sorted(images.tolist()) == list(range(n))
    assert int(permute(n // 2, n, keys)) == images[n // 2]


def test_large_permutations_are_injective_and_in_range():
    n = 10**12 + 39
    images = permute(np.arange(200_000) * 4_999_999, n, round_keys(3, "x"))
    assert len(set(images.tolist())) == 200_000
    assert 0 <= images.min() <= images.max() < n


def test_seeds_and_purposes_give_other_orders():
    orders = {tuple(permute(np.arange(50), 50, round_keys(s, p)).tolist()) for s in range(5) for p in ("a", "b", "c")}
    assert len(orders) == 15


def test_permutations_look_uniform():
    """Over many keys each image of 0 is as common as any other (chi-square, 15 degrees of freedom, p = 1e-6: 58)."""
    counts = np.bincount([int(permute(0, 16, round_keys(seed, "u"))) for seed in range(4000)], minlength=16)
    assert ((counts - 250) ** 2 / 250).sum() < 58


def test_the_order_has_no_trend():
    n = 20_000
    images = permute(np.arange(n), n, round_keys(5, "trend"))
    assert abs(np.corrcoef(np.arange(n), images)[0, 1]) < 5 / n**0.5
    assert abs(np.corrcoef(images[:-1], images[1:])[0, 1]) < 5 / n**0.5
    assert np.mean(np.abs(np.diff(images)) == 1) < 0.001


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        permute(10, 10, round_keys(1, "x"))


WEIGHTS = st.dictionaries(st.sampled_from("abcdefg"), st.floats(0.001, 1000), min_size=1, max_size=7)


@given(WEIGHTS, st.integers(0, 10**7), st.integers(1, 10**5))
def test_shares_are_exact_at_every_block_boundary_and_at_the_end(weights, block, rest):
    size = Mixture(weights, 1, 1, "p").block
    total = sum(Fraction(weight) for weight in weights.values())
    counts = []
    for rows in (block * size, (block + 1) * size, (block + 1) * size + rest):
        counts.append(Mixture(weights, rows, 1, "p").counts)
        assert sum(counts[-1]) == rows
        for source, count in zip(sorted(weights), counts[-1], strict=True):
            assert abs(count - Fraction(weights[source]) / total * rows) < 1
    assert all(later >= count for count, later in zip(counts[0], counts[1], strict=True))


@settings(max_examples=25)
@given(WEIGHTS.filter(lambda w: min(w.values()) / sum(w.values()) > 1e-3), st.integers(0, 2**31), st.integers(1, 5000))
def test_each_draw_number_comes_once_and_goes_on_when_read_anew(weights, seed, rows):
    mixture = Mixture(weights, rows, seed, "p")
    assert mixture.block == BLOCK
    for turns in (1, 3):
        found = drawn(mixture, range(turns * rows))
        for source, count in zip(mixture.sources, mixture.counts, strict=True):
            assert sorted(draw for name, draw in found if name == source) == list(range(turns * count))


@settings(max_examples=25)
@given(WEIGHTS, st.integers(1, 10**12), st.data())
def test_any_rows_in_any_order_are_drawn_alike(weights, rows, data):
    mixture = Mixture(weights, rows, 1, "p")
    asked = data.draw(st.lists(st.integers(0, 2 * rows), min_size=1, max_size=20))
    assert drawn(mixture, asked) == [drawn(mixture, [row])[0] for row in asked]


def test_rows_of_whole_blocks_do_not_depend_on_where_the_phase_ends():
    short, long = (Mixture({"a": 0.7, "b": 0.3}, rows, 1, "p") for rows in (3 * BLOCK, 9 * BLOCK + 17))
    assert drawn(short, range(2 * BLOCK)) == drawn(long, range(2 * BLOCK))


def test_a_source_of_tiny_weight_is_drawn_as_often_as_it_should():
    block = Mixture({"big": 1.0, "small": 1e-5}, 1, 1, "p").block
    mixture = Mixture({"big": 1.0, "small": 1e-5}, 100 * block, 1, "p")
    first = drawn(mixture, range(block))
    assert sum(name == "small" for name, _ in first) >= 1
    assert abs(mixture.counts[1] - 100 * block * 1e-5 / (1 + 1e-5)) < 1


def test_sources_without_weight_are_never_drawn():
    assert Mixture({"a": 1.0, "b": 0.0}, 10, 1, "p").sources == ("a",)


def test_the_order_of_names_does_not_matter():
    one, other = Mixture({"a": 1, "b": 2}, 500, 1, "p"), Mixture({"b": 2, "a": 1}, 500, 1, "p")
    assert drawn(one, range(50)) == drawn(other, range(50))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=4))
def test_a_replaced_stretch_reads_what_no_other_step_reads(stretches):
    replaced = [[first, first + length] for first, length in stretches]
    read = [data_step(step, 30, replaced) for step in range(30)]
    assert len(set(read)) == 30
    for step, data in enumerate(read):
        assert data % 30 == step
        assert data // 30 == sum(step in range(*stretch) for stretch in replaced)
