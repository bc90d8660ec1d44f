"""Shares and epochs of a phase's shards, by hand and against each other."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.recipe.epochs import epochs, shares, too_often
from glassbox.recipe.phases import Phase

SIZES = {"web": 0, "web/news": 300, "web/science": 100, "code": 50}


def phase(mixture: dict, tokens: int = 1000, **settings) -> Phase:
    return Phase(name="p", tokens=tokens, mixture=mixture, context=10, rows=2, **settings)


def test_a_source_stands_for_its_categories_by_size():
    found = shares(phase({"web": 3.0, "code": 1.0}), SIZES)
    assert found == {"web/news": Fraction(9, 16), "web/science": Fraction(3, 16), "code": Fraction(1, 4)}


def test_factors_move_shares_inside_a_source_alone():
    categories = {"web/news": 0.5, "web/science": 3.0}
    found = shares(phase({"web": 3.0, "code": 1.0}, categories=categories), SIZES)
    assert found == {"web/news": Fraction(1, 4), "web/science": Fraction(1, 2), "code": Fraction(1, 4)}
    without = shares(phase({"web": 3.0, "code": 1.0}, categories={"web/news": 0.0}), SIZES)
    assert without == {"web/science": Fraction(3, 4), "code": Fraction(1, 4)}


def test_a_category_by_name_has_its_own_weight():
    found = shares(phase({"web": 1.0, "web/science": 1.0}), SIZES)
    assert found == {"web/news": Fraction(3, 8), "web/science": Fraction(5, 8)}


def test_epochs_add_up_over_phases():
    phases = [phase({"web": 1.0}, 800), phase({"code": 1.0, "wiki": 1.0}, 500)]
    assert epochs(phases, SIZES) == {"code": 5.0, "web/news": 2.0, "web/science": 2.0}


@given(st.dictionaries(st.sampled_from(list(SIZES)), st.floats(0.01, 9), min_size=1), st.integers(1, 10**12))
def test_epochs_times_sizes_are_the_tokens(mixture, tokens):
    one = phase(mixture, tokens)
    read = sum(SIZES[name] * times for name, times in epochs([one], SIZES).items())
    assert read == pytest.approx(one.total_tokens)


def test_the_sentence_about_a_source_read_too_often():
    assert too_often({"code": 4.0, "web": 1.0}, 4) is None
    assert too_often({}, 4) is None
    wrong = too_often({"code": 5.0, "web": 1.0}, 4)
    assert wrong is not None
    assert "source 'code' would be read 5.00 times, more than max_epochs 4: give it a smaller weight" in wrong
