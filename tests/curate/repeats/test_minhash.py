"""Signatures against sets of shingles made in plain Python, and against what theory says of their error."""

import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from glassbox.curate.repeats.minhash import EMPTY, shingle_sets, signatures
from glassbox.recipe.duplicates import NearDuplicates
from tests.curate.alike import column, words


def units(text: str, unit: str) -> list[str]:
    if unit == "words":
        return words(text)
    if unit == "code":
        return re.findall(r"漢|[a-zA-Z0-9_]+", text)
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return list(" ".join(plain.split()))


def shingles(text: str, unit: str, n: int) -> set[tuple[str, ...]]:
    found = units(text, unit)
    return {tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))} if found else set()


@pytest.mark.parametrize("unit", ["words", "characters", "code"])
@bounds(deadline=None)
@given(texts=st.lists(st.text(alphabet="abB_ .\n漢1", max_size=25), min_size=2, max_size=5), n=st.integers(1, 4))
def test_shingles_are_those_of_plain_python(unit: str, texts: list[str], n: int) -> None:
    settings = NearDuplicates(unit=unit, ngram=n)  # type: ignore[arg-type]
    found = shingle_sets(column(texts), settings)
    expected = [shingles(text, unit, n) for text in texts]
    assert [len(one) for one in found] == [len(one) for one in expected]
    for i in range(len(texts)):
        for j in range(i):
            assert len(np.intersect1d(found[i], found[j])) == len(expected[i] & expected[j])
    table = signatures(column(texts), settings)
    assert [bool((row == EMPTY).all()) for row in table] == [not one for one in expected]
    for i in range(len(texts)):
        for j in range(i):
            assert np.array_equal(table[i], table[j]) == (expected[i] == expected[j])


def pair(draw: np.random.Generator, similarity: float, size: int) -> tuple[str, str, float]:
    """Two texts of `size` different words each, and the Jaccard similarity of their sets of words."""
    both = round(2 * size * similarity / (1 + similarity))
    found = [f"x{value}" for value in draw.integers(0, 1 << 40, 2 * size - both)]
    other = found[:both] + found[size:]
    draw.shuffle(other)
    return " ".join(found[:size]), " ".join(other), both / (2 * size - both)


@pytest.mark.parametrize("size", [8, 120])
@pytest.mark.parametrize("permutations", [128, 2048])
def test_estimates_err_as_theory_says(permutations: int, size: int) -> None:
    draw = np.random.default_rng(permutations + size)
    settings = NearDuplicates(ngram=1, permutations=permutations)
    for similarity in (0.3, 0.5, 0.8, 0.95):
        pairs = [pair(draw, similarity, size) for _ in range(200)]
        exact = pairs[0][2]
        table = signatures(column([text for one in pairs for text in one[:2]]), settings)
        estimate = (table[::2] == table[1::2]).mean(1)
        deviation = np.sqrt(exact * (1 - exact) / permutations)
        assert abs(estimate.mean() - exact) <= 4 * deviation / np.sqrt(200)
        assert np.sqrt(np.mean((estimate - exact) ** 2)) <= 1.25 * deviation + 1e-12


def test_signatures_do_not_depend_on_the_batch() -> None:
    texts = ["one two three", "", "four five", "漢字 kana カナ", "one two three"]
    settings = NearDuplicates()
    whole = signatures(column(texts), settings)
    for k in range(len(texts)):
        assert np.array_equal(signatures(column(texts)[k : k + 1], settings)[0], whole[k])
