"""The funnel against sums by hand: shares, what each step took, all sources together."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.report.funnel import ALL, funnels, sentence
from tests.report.curation_facts import FUNNEL


def rows_of(sources: dict[str, list[tuple[str, int, int]]]) -> list[dict[str, Any]]:
    return [
        {"step": step, "source": source, "documents": documents, "bytes": size, "tokens": size // 4}
        for source, steps in sources.items()
        for step, documents, size in steps
    ]


def test_one_source_stands_alone() -> None:
    (only,) = funnels(rows_of({"web": [("read", 10, 900), ("extract", 9, 400), ("c4", 4, 100), ("models", 4, 100)]}))
    read, extract, c4, models = only.steps
    assert (read.bar, read.left, read.tokens) == (None, "", "")
    assert (extract.bar, extract.removed) == ((1.0, 0.0), "−1")
    assert (c4.bar, c4.left, c4.removed, c4.still) == ((0.25, 0.75), "25.0 %", "−5", False)
    assert models.still


def test_without_extraction_the_first_step_is_all_text() -> None:
    rows = rows_of({"synthetic": [("problems", 100, 5000), ("verified", 40, 2000)]})
    first, last = funnels(rows)[0].steps
    assert first.bar == (1.0, 0.0)
    assert not first.still
    assert last.left == "40.0 %"
    assert sentence(rows) == "100 documents were read and 40 kept (40.0 %), 2.0 kB of 5.0 kB (40.0 %) of text."


def test_steps_of_all_sources_keep_every_source_s_order() -> None:
    both, web, code = funnels(rows_of(FUNNEL))
    assert both.source == ALL
    order = [step.name for step in both.steps]
    for one in (web, code):
        names = [step.name for step in one.steps]
        assert [name for name in order if name in names] == names
    assert order[-1] == "sampling"
    assert both.steps[0].documents == f"{489 + 1612:,}"
    assert both.steps[order.index("lines")].documents == f"{479 + 1612:,}", "code has no step lines: it stays as it was"
    assert both.steps[-1].documents == f"{301 + 1310:,}"


def test_sampling_up_widens_the_scale() -> None:
    steps = funnels(rows_of({"web": [("read", 3, 30), ("extract", 3, 10), ("sampling", 3, 20)]}))[0].steps
    assert [step.bar for step in steps] == [None, (0.5, 0.0), (1.0, 0.0)]
    assert steps[-1].left == "200.0 %"
    assert not steps[-1].still


@pytest.mark.parametrize("rows", [[{}], [{"documents": "many", "bytes": None}, {"step": None, "bytes": -5}]])
def test_odd_rows_give_some_funnel(rows: list[dict[str, Any]]) -> None:
    assert len(funnels(rows)[0].steps) == len(rows)
    assert sentence(rows).startswith("0 documents were read")


counts = st.tuples(st.sampled_from("abcdef"), st.integers(0, 10**6), st.integers(0, 10**12))


def test_sources_may_take_steps_in_different_orders() -> None:
    one = [("read", 10, 100), ("c4", 9, 90), ("gopher", 5, 50)]
    other = [("read", 10, 100), ("gopher", 8, 80), ("c4", 3, 30)]
    both = funnels(rows_of({"x": one, "y": other}))[0]
    assert [step.documents for step in both.steps] == ["20", "19", "8"]
    assert both.steps[-1].left == "40.0 %"


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), st.lists(counts, min_size=1, max_size=8), min_size=1))
def test_bars_fit_and_all_sources_end_as_their_sum(sources: dict[str, list[tuple[str, int, int]]]) -> None:
    sources = {name: list({step[0]: step for step in steps}.values()) for name, steps in sources.items()}
    found = funnels(rows_of(sources))
    for one in found:
        for step in one.steps:
            assert step.bar is None or (min(step.bar) >= 0 and sum(step.bar) <= 1 + 1e-9)
    assert found[0].steps[-1].documents == f"{sum(steps[-1][1] for steps in sources.values()):,}"
