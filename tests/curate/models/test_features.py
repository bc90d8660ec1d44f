"""Features against a plain Python reading of their definition."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.characters import IDEOGRAPHS, character_tables, utf8_buffer
from glassbox.curate.models import features
from glassbox.curate.models.features import read_features, read_words, scratch
from glassbox.curate.words import word_hashes


def plain_words(text):
    """Runs of letters and digits, single Han and Kana, runs of one sign."""
    words, i = [], 0
    alone = [any(a <= ord(c) <= b for a, b in IDEOGRAPHS) for c in text]
    while i < len(text):
        j = i + 1
        if text[i].isalnum():
            while not alone[i] and j < len(text) and text[j].isalnum() and not alone[j]:
                j += 1
        elif not text[i].isspace():
            while j < len(text) and text[j] == text[i]:
                j += 1
        if not text[i].isspace():
            words.append((i, text[i] if not text[i].isalnum() else text[i:j].lower()))
        i = j
    return words


def kernel_words(texts):
    """(hashes, places) of each text."""
    data, offsets = utf8_buffer(pa.array(texts, pa.large_string()))
    points, words, places, *_ = scratch(int(np.diff(offsets).max(initial=1)), 1, 8)
    for d in range(len(texts)):
        n = read_words(data, offsets[d], offsets[d + 1], *character_tables(), points, words, places)
        yield words[:n].copy(), places[: n + 1].copy()


def features_of(text, ngram, buckets):
    (words, _), *_ = kernel_words([text])
    *_, seen, index, values = scratch(len(text.encode()), ngram, buckets)
    n = read_features(words, len(words), ngram, seen, 1, index, values)
    return dict(zip(index[:n].tolist(), values[:n].tolist(), strict=True))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_words_begin_where_a_plain_reading_says(texts):
    for text, (_, places) in zip(texts, kernel_words(texts), strict=True):
        assert places.tolist() == [place for place, _ in plain_words(text)] + [len(text)]


def test_equal_words_have_equal_hashes_and_signs_count():
    ((words, _),) = kernel_words(["Naïve NAÏVE -- - {x} 中文中 x1"])
    names = [name for _, name in plain_words("Naïve NAÏVE -- - {x} 中文中 x1")]
    assert names == ["naïve", "naïve", "-", "-", "{", "x", "}", "中", "文", "中", "x1"]
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            assert (words[i] == words[j]) == (a == b)


def test_words_hash_as_for_near_duplicates():
    text = "One two 三 four5 SIX"
    ((words, _),) = kernel_words([text])
    assert words.tolist() == word_hashes(pa.array([text], pa.large_string()))[0].tolist()


def test_values_are_roots_of_counts_with_length_one():
    found = sorted(features_of("a b a a", 2, 1 << 20).values())
    # a: 3; b, "a b", "b a", "a a": 1 each.
    assert np.allclose(found, np.sqrt(np.array([1, 1, 1, 1, 3]) / 7))


@settings(deadline=None)
@given(st.text("ab c", max_size=60), st.integers(1, 4), st.integers(1, 50))
def test_a_text_has_length_one_in_any_number_of_buckets(text, ngram, buckets):
    found = features_of(text, ngram, buckets)
    assert all(0 <= bucket < buckets for bucket in found)
    length = sum(value**2 for value in found.values())
    assert np.isclose(length, 1 if text.strip() else 0, atol=1e-5)


def test_only_the_beginning_of_a_long_text_is_read():
    beginning = "é" * (features.READ_BYTES // 2 - 1)
    for text, words in ((beginning + " x中 y", 2), (beginning + " 中 y", 1), (beginning + "中 y", 1)):
        ((_, places),) = kernel_words([text + " z" * 1000])
        assert len(places) - 1 == words
        assert len(text[: places[-1]].encode()) <= features.READ_BYTES
