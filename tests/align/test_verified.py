"""Which solutions are kept: every rule on hand-made replies, and what must hold whatever the replies are."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.align.endpoint import Answer
from glassbox.align.verified import STEPS, Solution, funnel, judged
from glassbox.recipe.text import SynthesizeStage

PROBLEM = {"id": "addition-1", "question": "What is 2 + 3?", "answer": "5"}


def settings(**changes: object) -> SynthesizeStage:
    return SynthesizeStage.model_validate({"kind": "synthesize", "problems": 1, **changes})


def said(*texts: str | None) -> list[Answer | None]:
    return [None if text is None else Answer(text, "stop") for text in texts]


def rules(solutions: list[Solution]) -> list[str]:
    return [solution.rule for solution in solutions]


def test_each_reply_has_the_first_rule_that_drops_it() -> None:
    replies = [
        *said("2 + 3 = 5\n#### 5", "2+3=5, so\n#### 5", "3 + 2 = 5\n#### 5.0", "#### 6", "no idea", None),
        Answer("2 + 3 = 5\n#### 5", "length"),
        *said("2 + 3  = 5\n####  5", "By counting: \\boxed{5}"),
    ]
    found = judged(PROBLEM, replies, settings(keep=2))
    expected = ["", "duplicate", "", "wrong_answer", "no_answer", "no_reply", "cut_off", "duplicate", "surplus"]
    assert rules(found) == expected
    assert [solution.pass_rate for solution in found] == [pytest.approx(5 / 8)] * 9
    assert found[3].other == "6"
    assert found[1].other == found[7].other != ""
    assert rules(judged({**PROBLEM, "answer": ""}, said("#### 5"), settings())) == ["not_judged"]


@pytest.mark.parametrize(
    ("low", "high", "right", "rule"),
    [(0.5, 1.0, 1, "too_hard"), (0.0, 0.5, 3, "too_easy"), (0.25, 0.75, 2, ""), (0.0, 0.75, 4, "too_easy")],
)
def test_a_problem_outside_the_band_of_difficulty_keeps_nothing(low: float, high: float, right: int, rule: str) -> None:
    replies = said(*[f"way {n}: \\boxed{{5}}" for n in range(right)], *["#### 7"] * (4 - right))
    found = judged(PROBLEM, replies, settings(low=low, high=high, keep=4))
    assert rules(found) == [rule] * right + ["wrong_answer"] * (4 - right)
    assert {solution.threshold for solution in found[:right]} == {{"too_hard": low, "too_easy": high}.get(rule)}


@given(
    st.lists(st.sampled_from(["#### 5", "a\n#### 5", "b 1+1=2\n#### 5", "c 1 + 1 = 2\n#### 5", "#### 6", "", None])),
    st.integers(1, 3),
)
def test_what_is_kept_checks_is_distinct_and_bounded(texts: list[str | None], keep: int) -> None:
    found = judged(PROBLEM, said(*texts), settings(keep=keep))
    kept = [solution.text for solution in found if not solution.rule]
    assert len(kept) == len(set(kept)) <= keep
    assert all(text.endswith("#### 5") for text in kept)
    assert bool(kept) == any(solution.right for solution in found)
    assert [solution.text for solution in found] == [text or "" for text in texts]


def test_the_funnel_adds_up() -> None:
    counts = Counter({rule: n + 1 for n, rule in enumerate(STEPS)}) + Counter({"": 7})
    rows = funnel("synthetic", counts, {rule: 10 * count for rule, count in counts.items()})
    assert [row["step"] for row in rows] == [
        "asked",
        "answered",
        "finished",
        "verified",
        "difficulty",
        "distinct",
        "keep",
    ]
    assert (rows[0]["documents"], rows[0]["bytes"]) == (counts.total(), 10 * counts.total())
    assert (rows[-1]["documents"], rows[-1]["bytes"]) == (7, 70)
    assert [row["documents"] for row in rows] == sorted((row["documents"] for row in rows), reverse=True)
