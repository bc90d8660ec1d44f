"""Word n-grams, signatures and near duplicates against exact Jaccard similarity."""

import random
import re
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from glassbox.curate.duplicates import content_key, exact_copies, near_copies, signatures
from glassbox.curate.words import gram_hashes, word_hashes
from glassbox.recipe.curation import NearDuplicates

TEXTS = [
    "The quick, brown FOX!",
    "",
    "...",
    "x",
    "中文 字 kana カナ a1b2",
    "the quick brown fox jumps over the lazy dog",
    "éÉ Straße",
]
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff_])\w)+")


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def shingles(text: str, n: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))} if found else set()


@cache
def hashed(text: str) -> frozenset[int]:
    return frozenset(map(hash, shingles(text, 5)))


def jaccard(one: str, other: str) -> float:
    a, b = hashed(one), hashed(other)
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def table(texts: list[str], settings: NearDuplicates) -> np.ndarray:
    found = word_hashes(pa.array(texts, pa.large_string()))
    return signatures(*gram_hashes(*found, settings.ngram), settings.permutations)


def test_words_hash_alike_exactly_when_they_are_equal() -> None:
    hashes, bounds = word_hashes(pa.array(TEXTS, pa.large_string()))
    expected = [word for text in TEXTS for word in words(text)]
    assert np.diff(bounds).tolist() == [len(words(text)) for text in TEXTS]
    assert len(hashes) == len(expected)
    names = dict(zip(hashes.tolist(), expected, strict=True))
    assert [names[value] for value in hashes.tolist()] == expected
    assert len(names) == len(set(expected))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_grams_hash_alike_exactly_when_they_are_equal(n: int) -> None:
    grams, bounds = gram_hashes(*word_hashes(pa.array(TEXTS, pa.large_string())), n)
    seen: dict[int, tuple[str, ...]] = {}
    for d, text in enumerate(TEXTS):
        found = words(text)
        expected = [tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))] if found else []
        mine = grams[bounds[d] : bounds[d + 1]].tolist()
        assert len(mine) == len(expected)
        for value, gram in zip(mine, expected, strict=True):
            assert seen.setdefault(value, gram) == gram
    assert len(set(seen.values())) == len(seen)


def corpus(seed: int = 0) -> list[str]:
    """Base documents and edited copies over the whole range of similarities, in random order."""
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(5000)]
    texts = []
    for _ in range(70):
        base = [draw.choice(vocabulary) for _ in range(draw.randint(60, 400))]
        texts.append(" ".join(base))
        for rate in (0.002, 0.01, 0.02, 0.04, 0.1):
            texts.append(" ".join(draw.choice(vocabulary) if draw.random() < rate else word for word in base))
    draw.shuffle(texts)
    return texts


def test_signatures_estimate_jaccard_similarity_as_theory_says() -> None:
    settings = NearDuplicates()
    texts = corpus(1)[:200]
    found = table(texts, settings)
    errors = []
    for i in range(200):
        for j in range(i):
            exact = jaccard(texts[i], texts[j])
            if 0.3 < exact < 0.95:
                estimate = np.mean(found[i] == found[j])
                errors.append((estimate - exact) / np.sqrt(exact * (1 - exact) / settings.permutations))
    assert len(errors) > 20
    assert abs(np.mean(errors)) < 0.5
    assert 0.6 < np.std(errors) < 1.5


def test_planted_near_duplicates_are_found_and_the_innocent_stay() -> None:
    settings = NearDuplicates()
    texts = corpus()
    kept, similarity = near_copies(table(texts, settings), np.arange(len(texts)), settings)
    exact = {(i, j): jaccard(texts[i], texts[j]) for i in range(len(texts)) for j in range(i)}
    dropped = np.flatnonzero(kept != np.arange(len(texts)))
    # Each dropped document goes for one that stays, stands before it, and is really alike.
    for d in dropped:
        assert kept[kept[d]] == kept[d]
        assert kept[d] < d
    precision = np.mean([exact[d, kept[d]] >= 0.7 for d in dropped])
    stays = set(np.flatnonzero(kept == np.arange(len(texts))).tolist())
    must = [d for d in range(len(texts)) if any(exact[d, j] >= 0.9 for j in range(d) if j in stays)]
    assert len(must) > 30
    missed = stays.intersection(must)
    assert precision > 0.99
    assert len(missed) <= 0.03 * len(must)
    assert (similarity[dropped] >= settings.threshold).all()
    assert not similarity[sorted(stays)].any()


def test_a_chain_of_neighbours_drops_nothing_unlike_what_stays() -> None:
    settings = NearDuplicates(threshold=0.7)
    base = [f"w{i}" for i in range(400)]
    texts = [" ".join(base[20 * k : 300 + 20 * k]) for k in range(6)]
    kept, _ = near_copies(table(texts, settings), np.arange(6), settings)
    assert kept[0] == 0
    assert kept[1] == 0
    for d in range(6):
        if kept[d] != d:
            assert jaccard(texts[d], texts[kept[d]]) > 0.6
    assert (kept == np.arange(6)).sum() >= 2


def test_only_documents_still_alive_are_compared_and_empty_ones_never() -> None:
    settings = NearDuplicates()
    texts = ["one two three four five six seven"] * 4 + ["!!!", "???"]
    kept, _ = near_copies(table(texts, settings), np.array([1, 3, 4, 5]), settings)
    assert kept.tolist() == [0, 1, 2, 1, 4, 5]


def test_short_documents_are_one_shingle() -> None:
    settings = NearDuplicates()
    kept, _ = near_copies(table(["two words", "Two, words!", "two other"], settings), np.arange(3), settings)
    assert kept.tolist() == [0, 0, 2]


def test_exact_copies_differ_in_white_space_only() -> None:
    texts = ["a b\nc", "x", " a  b c\n", "A b c", "x"]
    keys = np.frombuffer(b"".join(map(content_key, texts)), np.uint64).reshape(-1, 2)
    assert exact_copies(keys).tolist() == [0, 1, 0, 3, 1]
