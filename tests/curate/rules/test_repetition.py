"""Repeats in succession and bounded work on hostile text; the shares themselves are tested in test_statistics.py."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.rules.repetition import LONGEST_PERIOD, longest_run
from glassbox.curate.rules.statistics import STATISTICS, statistics


def plain_run(items: list[int]) -> int:
    best = int(bool(items))
    for period in range(1, LONGEST_PERIOD + 1):
        for i in range(len(items) - period + 1):
            part, count = items[i : i + period], 1
            while items[i + count * period : i + (count + 1) * period] == part:
                count += 1
            best = max(best, count)
    return best


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=14), st.integers(0, 6))
def test_runs_are_counted_as_by_trying_all(before: list[int], part: list[int], times: int) -> None:
    items = before + part * times + before
    found = longest_run(np.array(items, np.int64), len(items), np.zeros(1, np.uint8), 0)
    assert found == plain_run(items)


def test_the_published_detector_gives_the_same_verdict() -> None:
    # A run of r equal neighbours at distance p means (r + p) // p repeats (arXiv:2409.02060, section 2).
    for period in range(1, LONGEST_PERIOD + 1):
        part = list(range(100, 100 + period))
        for times, drop in ((31, False), (32, True)):
            items = [1, 2, *part * times, 3]
            run = max(sum(1 for _ in group) for group in equal_neighbours(items, period))
            found = longest_run(np.array(items, np.int64), len(items), np.zeros(1, np.uint8), 0)
            assert ((run + period) // period >= 32) == (found >= 32) == drop


def equal_neighbours(items: list[int], period: int) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    for i in range(period, len(items)):
        if items[i] == items[i - period]:
            groups[-1].append(i)
        else:
            groups.append([])
    return groups


HOSTILE = {
    "one long line": "x" * 4_000_000,
    "one word again and again": "spam " * 800_000,
    "two words in turn": "ab ba " * 600_000,
    "no word twice": " ".join(f"{i:x}" for i in range(500_000)),
    "single letters": "a b c d e f g h i j k l m n " * 140_000,
    "newlines": "\n" * 4_000_000,
    "dots": "." * 4_000_000,
    "almost periodic": ("a" * 199 + "b") * 20_000,
    "hexadecimal": "0x00, " * 600_000,
    "tags": "<!--<script>" * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_measured_in_linear_time(name: str) -> None:
    text = HOSTILE[name]
    row = statistics(pa.array([text], pa.large_string()))[0]
    assert row[STATISTICS.index("characters")] == len(text)
    assert row[STATISTICS.index("words")] == len(text.split())
    assert np.isfinite(row[: STATISTICS.index("words_cut")]).all()
