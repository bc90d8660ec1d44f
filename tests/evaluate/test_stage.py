"""What the evaluate stage asks, judges and adds up."""

from dataclasses import asdict
from pathlib import Path

import pytest

from glassbox.errors import RequestError
from glassbox.evaluate.stage import ask, describe, exact_match, first_answer, run
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.training import EvaluateStage, Sampling
from tests.tiny import tiny_loaded, tiny_problems

CONFIG = EvaluateStage(kind="evaluate", samples_shown=2, sampling=Sampling(temperature=0.0, max_new_tokens=6, batch=4))


def test_a_running_text_counts_up_to_its_first_answer() -> None:
    text = "4+5=9\n#### 9\n\nWhat is 1 + 1?\n#### 2"
    assert first_answer(text) == "4+5=9\n#### 9"
    assert first_answer("no answer yet") == "no answer yet"


def test_every_problem_is_asked_once_and_the_same_ones_are_shown() -> None:
    loaded, problems = tiny_loaded(), [asdict(problem) for problem in tiny_problems(7)]
    chat = ask(CONFIG, loaded, "base", "exact_match", problems, seed=1)
    assert [row["id"] for row in chat] == [problem["id"] for problem in problems]
    assert sum(row["shown"] for row in chat) == 2
    assert chat == ask(CONFIG, loaded, "base", "exact_match", problems, seed=1)
    plain = ask(CONFIG, loaded, "base", "exact_match_plain", problems, seed=1)
    assert [row["id"] for row in plain if row["shown"]] == [row["id"] for row in chat if row["shown"]]
    assert [row["reply"] for row in plain] != [row["reply"] for row in chat]


def test_shares_are_counted_over_all_and_by_kind() -> None:
    rows = [
        {"kind": kind, "correct": correct} for kind, correct in (("a", True), ("a", False), ("b", True), ("b", True))
    ]
    scores = {score.kind: score for score in exact_match(rows, "base", "exact_match", 0.95)}
    assert {kind: (score.value, score.n) for kind, score in scores.items()} == {
        None: (0.75, 4),
        "a": (0.5, 2),
        "b": (1.0, 2),
    }
    assert all(score.low <= score.value <= score.high for score in scores.values())


def test_the_protocol_says_what_could_change_a_score() -> None:
    problems = [asdict(problem) for problem in tiny_problems(3)]
    protocol = describe(CONFIG, problems, seed=1)
    assert protocol["sampling"] == {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 6}
    assert protocol["problems"] == 3
    assert protocol["problems_sha256"] != describe(CONFIG, problems[:2], seed=1)["problems_sha256"]


def test_nothing_to_score_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs problems or tokens"):
        run(CONFIG, Inputs(), Workspace(tmp_path))
