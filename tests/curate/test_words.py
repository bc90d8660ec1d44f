"""Words and word n-grams hash alike exactly when they are equal."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.words import gram_hashes, read_words, word_characters, word_hashes
from tests.curate.alike import column, words

TEXTS = [
    "The quick, brown FOX!",
    "",
    "...",
    "x",
    "中文 字 kana カナ a1b2",
    "the quick brown fox jumps over the lazy dog",
    "éÉ Straße",
    "a漢b字 snake_case",
    "ภาษาไทย",
]


def assert_hashes_name(hashes: list[int], expected: list) -> None:
    """Equal things have equal hashes and different ones different hashes."""
    names = dict(zip(hashes, expected, strict=True))
    assert [names[value] for value in hashes] == expected
    assert len(names) == len(set(expected))


def test_words_hash_alike_exactly_when_they_are_equal() -> None:
    hashes, bounds = word_hashes(column(TEXTS))
    assert np.diff(bounds).tolist() == [len(words(text)) for text in TEXTS]
    assert_hashes_name(hashes.tolist(), [word for text in TEXTS for word in words(text)])


@settings(deadline=None)
@given(st.lists(st.text(alphabet="aB漢カ1_ .\né", max_size=20), min_size=1, max_size=5))
def test_words_are_those_of_a_regular_expression(texts: list[str]) -> None:
    hashes, bounds = word_hashes(column(texts))
    assert np.diff(bounds).tolist() == [len(words(text)) for text in texts]
    assert_hashes_name(hashes.tolist(), [word for text in texts for word in words(text)])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_grams_hash_alike_exactly_when_they_are_equal(n: int) -> None:
    grams, bounds = gram_hashes(*word_hashes(column(TEXTS)), n)
    expected = []
    for text in TEXTS:
        found = words(text)
        expected += [tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))] if found else []
    assert bounds[-1] == len(expected)
    assert_hashes_name(grams.tolist(), expected)


def test_words_of_code_keep_case_and_underscores_and_say_where_they_stand() -> None:
    text = "def Foo_bar(x1):\n    return _é + 漢字"
    data, offsets = utf8_buffer(column([text]))
    hashes, starts, ends = np.zeros(50, np.uint64), np.zeros(50, np.int64), np.zeros(50, np.int64)
    count = read_words(data, offsets[0], offsets[1], word_characters("code"), hashes, starts, ends)
    found = [data[start:end].tobytes().decode() for start, end in zip(starts[:count], ends[:count], strict=True)]
    assert found == re.findall(r"漢|字|[a-zA-Z0-9_é]+", text)
    other = np.zeros(50, np.uint64)
    data, offsets = utf8_buffer(column(["foo_bar"]))
    assert read_words(data, offsets[0], offsets[1], word_characters("code"), other, None, None) == 1
    assert other[0] not in hashes
