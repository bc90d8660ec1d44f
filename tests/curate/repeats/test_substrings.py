"""Repeated passages against a plain search through all windows of words."""

import itertools
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from glassbox.curate.repeats.substrings import repeated_passages
from glassbox.recipe.duplicates import Substrings
from tests.curate.alike import MEMORY, WORD, paragraphs, reader, shuffled, words

Spans = dict[int, list[tuple[int, int]]]


def passages(texts: list[str], order: list[int], settings: Substrings, scratch: Path, memory: int = MEMORY) -> Spans:
    found = repeated_passages(reader(texts), np.array(order, np.int64), settings, scratch, memory)
    spans: Spans = defaultdict(list)
    for document, start, end in zip(*(column.tolist() for column in found), strict=True):
        spans[document].append((start, end))
    return dict(spans)


def outside_fences(text: str) -> list[tuple[int, int]]:
    """Stretches between fenced blocks, as CommonMark says."""
    found, start, at, ticks = [], 0, 0, 0
    for line in text.split("\n"):
        fence = re.match(r" {0,3}(`{3,})(.*)", line)
        if not ticks and fence:
            found.append((start, at))
            ticks = len(fence[1])
        elif ticks and fence and len(fence[1]) >= ticks and not fence[2].strip():
            ticks, start = 0, at + len(line) + 1
        at += len(line) + 1
    return found if ticks else [*found, (start, len(text))]


def plain_search(texts: list[str], order: list[int], settings: Substrings) -> dict[int, set[int]]:
    """Document -> characters of windows that stand at an earlier place too (anywhere else, without keep_one)."""
    seen = defaultdict(list)
    for place, document in enumerate(order):
        for first, last in outside_fences(texts[document]):
            found = [one for one in WORD.finditer(texts[document][:last].lower(), first) if one.group().isalnum()]
            for i in range(len(found) - settings.words + 1):
                window = found[i : i + settings.words]
                where = (place, window[0].start(), window[-1].end(), document)
                seen[tuple(one.group() for one in window)].append(where)
    cut: dict[int, set[int]] = defaultdict(set)
    for occurrences in seen.values():
        first = min(occurrences)
        for place, start, end, document in occurrences:
            if not settings.keep_one and len(occurrences) > 1:
                cut[document] |= set(range(start, end))
            elif (place, start) != first[:2]:
                cut[document] |= set(range(max(start, first[2]) if place == first[0] else start, end))
    return dict(cut)


def assert_equal_to_a_plain_search(texts: list[str], order: list[int], settings: Substrings, found: Spans) -> None:
    characters = {d: {k for start, end in spans for k in range(start, end)} for d, spans in found.items()}
    assert characters == plain_search(texts, order, settings)
    for spans in found.values():
        assert all(a < b for a, b in spans)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[str], list[int], Substrings]:
    """A few documents put together from few pieces, words, fences."""
    vocabulary = draw(st.sampled_from([["a"], ["a", "Bé"], ["a", "漢", "cc"], [f"w{i}" for i in range(30)]]))
    some_words = st.lists(st.sampled_from(vocabulary), min_size=1, max_size=30).map(" ".join)
    pieces = draw(st.lists(some_words, min_size=1, max_size=4))
    piece = st.sampled_from([*pieces, *pieces, "\n```py\n", "\n```\n", "\n  ````  \n", " ` ", "\n"])
    texts = draw(st.lists(st.lists(piece, max_size=9).map(". ".join), min_size=1, max_size=6))
    order = draw(st.permutations(range(len(texts))))[: draw(st.integers(1, len(texts)))]
    return texts, order, Substrings(words=draw(st.integers(2, 20)), keep_one=draw(st.booleans()))


@bounds(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=corpora(), memory=st.sampled_from([1 << 10, MEMORY]))
def test_exactly_the_repeated_windows_are_cut(
    tmp_path: Path, corpus: tuple[list[str], list[int], Substrings], memory: int
) -> None:
    texts, order, settings = corpus
    assert_equal_to_a_plain_search(texts, order, settings, passages(texts, order, settings, tmp_path, memory))


@pytest.mark.parametrize("keep_one", [True, False])
def test_long_passages_on_random_texts_whatever_the_numbering(tmp_path: Path, keep_one: bool) -> None:
    draw = np.random.default_rng(0)
    shared = [" ".join(f"s{i}" for i in draw.integers(0, 900, size)) for size in (49, 50, 51, 200)]
    texts = []
    for _ in range(60):
        own = [f"w{i}" for i in draw.integers(0, 900, 120)]
        at = int(draw.integers(0, 120))
        texts.append(" ".join([*own[:at], shared[int(draw.integers(0, 4))], *own[at:]]))
    order = draw.permutation(60).tolist()
    settings = Substrings(keep_one=keep_one)
    found = passages(texts, order, settings, tmp_path)
    assert len(found) > 30
    assert_equal_to_a_plain_search(texts, order, settings, found)
    assert passages(texts, order, settings, tmp_path, 1 << 12) == found
    old, new = shuffled(60)
    again = passages([texts[d] for d in old], new[order].tolist(), settings, tmp_path)
    assert {int(old[d]): spans for d, spans in again.items()} == found
    assert not list(tmp_path.iterdir())


def test_words_repeated_over_and_over_stay_once(tmp_path: Path) -> None:
    text = "a b c " * 40
    settings = Substrings(words=10)
    found = passages([text], [0], settings, tmp_path)
    (start, end), *others = found[0]
    assert not others
    left = text[:start] + text[end:]
    assert words(left) == words(text)[: len(words(left))]
    assert len(words(left)) == 10


def test_editions_lose_what_an_earlier_one_holds(tmp_path: Path, data: Path) -> None:
    texts = ["\n\n".join(paragraphs(data, "11")), "\n\n".join(paragraphs(data, "35"))]
    texts += [texts[0][5000:40_000], texts[1].upper()]
    found = passages(texts, [1, 0, 2, 3], Substrings(), tmp_path)
    left = {d: len(texts[d]) - sum(end - start for start, end in found.get(d, [])) for d in range(4)}
    assert left[2] < 20
    assert left[3] < 20
    assert passages(texts, [2, 3], Substrings(), tmp_path).keys() == passages(
        texts[2:], [0], Substrings(), tmp_path
    ).keys() | {3}
    texts[2] = f"```\n{texts[2]}\n```"
    assert 2 not in passages(texts, [1, 0, 2, 3], Substrings(), tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert passages(["", "a", "```"], [0, 1, 2], Substrings(words=2), tmp_path) == {}
    assert passages([], [], Substrings(), tmp_path) == {}
