"""Shares of categories before and after sampling."""

from types import SimpleNamespace
from typing import Any

import pytest

from glassbox.recipe.curation import CurateStage
from glassbox.report.balance import Balance, balance


def shown(sampled: Any, targets: dict[str, float]) -> Balance | None:
    settings = CurateStage.model_validate(
        {"kind": "curate", "from": ["topics"], "models": [{"stage": "topics"}],
         "sources": [{"name": "web", "format": "jsonl", "path": "x.jsonl"}],
         "sampling": {"category": "topics", "targets": targets}}
    )  # fmt: skip
    facts: Any = SimpleNamespace(json=lambda stage, *parts: sampled)
    stage: Any = SimpleNamespace(settings=settings)
    return balance(facts, stage)


def test_shares_targets_and_factors() -> None:
    sampled = {
        "prose": {"documents": 8, "bytes": 800, "bytes_used": 500},
        "maths": {"documents": 2, "bytes": 200, "bytes_used": 500},
        "none": {"documents": 0, "bytes": 0, "bytes_used": 0},
    }
    found = shown(sampled, {"maths": 0.6})
    assert found
    assert [one.name for one in found.categories] == ["prose", "maths", "none"], "of equals, what was more before"
    prose, maths, none = found.categories
    assert maths.cells == ["2", "200 B", "20.0 %", "50.0 %", "60.0 %", "× 2.5"]
    assert maths.bars == pytest.approx((0.25, 0.625))
    assert maths.mark == pytest.approx(0.75)
    assert prose.mark is None
    assert none.cells[-1] == "–"


@pytest.mark.parametrize("sampled", [None, {}, [1], {"maths": {"bytes": 0}}, {"maths": None}])
def test_nothing_to_show(sampled: Any) -> None:
    assert shown(sampled, {"maths": 0.6}) is None


def test_all_of_a_text_gone() -> None:
    found = shown({"maths": {"documents": 2, "bytes": 200, "bytes_used": 0}}, {})
    assert found
    assert found.categories[0].cells == ["2", "200 B", "100.0 %", "0.0 %", "–", "× 0"]
