"""The same held-out problem answered by every model, in each way it was asked."""

from dataclasses import dataclass
from typing import Any

from glassbox.report.format import excerpt
from glassbox.report.overview import Model

REPLY_CHARACTERS = 1200
WAYS = {"exact_match": "in the chat format", "exact_match_plain": "as running text"}
"""Metric -> how the problems are put to the model."""


@dataclass(frozen=True)
class Reply:
    """What one model answered."""

    model: Model
    text: str
    correct: bool | None
    """None if it was not judged."""


@dataclass(frozen=True)
class Conversation:
    """One problem, and every model's answer to it."""

    kind: str
    question: str
    answer: str
    ways: list[tuple[str, list[Reply]]]
    """(how it was asked, replies in the order of the models)."""


def conversations(samples: list[dict[str, Any]], models: list[Model]) -> list[Conversation]:
    """Sample rows grouped by problem and way of asking, in the order in which they stand."""
    problems: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for row in samples:
        problem = problems.setdefault(str(row.get("id") or row.get("question")), {})
        problem.setdefault(str(row.get("metric") or "exact_match"), {})[str(row.get("model"))] = row
    return [_conversation(by_metric, models) for by_metric in problems.values()]


def _conversation(by_metric: dict[str, dict[str, dict[str, Any]]], models: list[Model]) -> Conversation:
    first = next(iter(next(iter(by_metric.values())).values()))
    ways = [
        (
            WAYS.get(metric, metric.replace("_", " ")),
            [_reply(model, rows[model.name]) for model in models if model.name in rows],
        )
        for metric, rows in sorted(by_metric.items())
    ]
    return Conversation(
        excerpt(first.get("kind"), 60),
        excerpt(first.get("question"), REPLY_CHARACTERS),
        excerpt(first.get("answer"), 100),
        ways,
    )


def _reply(model: Model, row: dict[str, Any]) -> Reply:
    correct = row.get("correct")
    return Reply(model, excerpt(row.get("reply"), REPLY_CHARACTERS), correct if isinstance(correct, bool) else None)
