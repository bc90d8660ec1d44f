"""Scores with their intervals and protocols, and the same held-out problem answered by every model."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows
from glassbox.report.charts import Dot, dot_chart
from glassbox.report.format import NONE, count, excerpt, is_number, number, percent
from glassbox.report.overview import TONES

ACCURACY, BITS = "exact_match", "bits_per_byte"
ALL = "all"
"""The source of a bits-per-byte row that names none."""
REPLY_CHARACTERS = 1200


@dataclass(frozen=True)
class Score:
    """One measured value with its interval."""

    value: float
    low: float | None
    high: float | None
    n: int | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Score | None":
        """A row of scores.json; None if it has no value."""
        if not is_number(row.get("value")):
            return None
        low, high, n = (row[key] if is_number(row.get(key)) else None for key in ("low", "high", "n"))
        return cls(float(row["value"]), low, high, int(n) if n is not None else None)

    @property
    def percent(self) -> str:
        return percent(self.value)

    @property
    def percents(self) -> str:
        """The interval of a share: 54.1 to 59.8."""
        known = self.low is not None and self.high is not None
        return f"{self.low * 100:.1f} to {self.high * 100:.1f}" if known else ""  # type: ignore[operator]

    @property
    def bits(self) -> str:
        return f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        known = self.low is not None and self.high is not None
        return f"{self.low:.3f} to {self.high:.3f}" if known else ""


@dataclass(frozen=True)
class Model:
    """A scored model: the stage that made it and the colour it has in charts."""

    name: str
    kind: str
    tone: int


@dataclass(frozen=True)
class BitsRow:
    """Bits per byte of one source: every model beside the baselines."""

    source: str
    models: list[Score | None]
    baselines: list[str]


@dataclass(frozen=True)
class Reply:
    """What one model answered."""

    model: Model
    text: str
    correct: bool | None


@dataclass(frozen=True)
class Conversation:
    """One problem and every model's answer to it, in the order of the models."""

    kind: str
    question: str
    answer: str
    replies: list[Reply]


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluate stage leaves."""

    stage: str
    models: list[Model]
    accuracy: list[Score | None]
    kinds: list[tuple[str, list[Score | None]]]
    accuracy_chart: Markup
    accuracy_protocol: str
    bits: list[BitsRow]
    bits_shown: BitsRow | None
    """The row of the headline and the chart: all sources together where there is such a row, else the first."""
    baselines: list[str]
    bits_chart: Markup
    bits_protocol: str
    conversations: list[Conversation]


def evaluation(facts: RunFacts, stage: StageFacts) -> Evaluation | None:
    """The scores of a finished evaluate stage; None if there are none."""
    scores = as_dict(facts.json(stage, "scores.json"))
    rows = [row for row in as_rows(scores.get("rows")) if Score.of(row)]
    samples = facts.lines(stage, "samples.jsonl")
    if not rows and not samples:
        return None
    models = _models(facts, [*rows, *samples])
    accuracy, kinds = _accuracy(rows, models)
    protocol = as_dict(scores.get("protocol"))
    names, bits = _bits(rows, models, as_dict(scores.get("baselines")))
    shown = next((row for row in bits if row.source == ALL), bits[0] if bits else None)
    return Evaluation(
        stage=stage.name,
        models=models,
        accuracy=accuracy,
        kinds=kinds,
        accuracy_chart=_accuracy_chart(models, accuracy),
        accuracy_protocol=protocol_line(protocol, ACCURACY),
        bits=bits,
        bits_shown=shown,
        baselines=names,
        bits_chart=_bits_chart(models, names, shown),
        bits_protocol=protocol_line(protocol, BITS),
        conversations=_conversations(samples, models),
    )


def protocol_line(protocol: dict[str, Any], metric: str) -> str:
    """How a score was measured, in one line: the protocol's own part for the metric, then what holds for all."""
    own = protocol.get(metric)
    shared = {key: value for key, value in protocol.items() if key not in (ACCURACY, BITS)}
    parts = [own] if isinstance(own, str) else _pairs(as_dict(own))
    return " · ".join([*parts, *_pairs(shared)])


def _pairs(value: dict[str, Any], prefix: str = "") -> list[str]:
    parts: list[str] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, dict):
            parts += _pairs(item, f"{name} ")
        elif isinstance(item, list):
            parts.append(f"{name} {', '.join(map(str, item))}")
        elif item is not None:
            parts.append(f"{name} {excerpt(item, 90)}")
    return parts


def _models(facts: RunFacts, rows: list[dict[str, Any]]) -> list[Model]:
    """The models that have rows, in the recipe's order; those of no stage after them."""
    named = dict.fromkeys(str(row["model"]) for row in rows if row.get("model") is not None)
    kinds = {stage.name: stage.kind for stage in facts.stages}
    order = {name: place for place, name in enumerate(kinds)}
    names = sorted(named, key=lambda name: order.get(name, len(order)))
    return [Model(name, kinds.get(name, "model"), TONES.get(kinds.get(name, ""), 5)) for name in names]


def _accuracy(
    rows: list[dict[str, Any]], models: list[Model]
) -> tuple[list[Score | None], list[tuple[str, list[Score | None]]]]:
    """Every model's score over all problems, and for each kind of problem."""
    table: dict[str | None, dict[str, Score | None]] = {}
    for row in rows:
        if row.get("metric") == ACCURACY:
            kind = row.get("kind")
            table.setdefault(str(kind) if kind else None, {})[str(row.get("model"))] = Score.of(row)
    whole = table.pop(None, {})
    kinds = [(str(kind), [found.get(model.name) for model in models]) for kind, found in sorted(table.items(), key=str)]
    return [whole.get(model.name) for model in models], kinds


def _bits(
    rows: list[dict[str, Any]], models: list[Model], baselines: dict[str, Any]
) -> tuple[list[str], list[BitsRow]]:
    """Names of the baselines, and a row for each source."""
    table: dict[str, dict[str, Score | None]] = {}
    for row in rows:
        if row.get("metric") == BITS:
            table.setdefault(str(row.get("source") or ALL), {})[str(row.get("model"))] = Score.of(row)
    bits = []
    for source, found in table.items():
        beside = [_baseline(baselines[name], source) for name in baselines]
        bits.append(BitsRow(source, [found.get(model.name) for model in models], beside))
    return list(baselines), bits


def _baseline(value: Any, source: str) -> str:
    if isinstance(value, dict):
        value = value.get(source)
    if isinstance(value, dict):
        value = value.get("value")
    return f"{value:.3f}" if is_number(value) else NONE


def _accuracy_chart(models: list[Model], accuracy: list[Score | None]) -> Markup:
    dots = [
        Dot(model.name, score.value, _or(score.low, score.value), _or(score.high, score.value), score.percent, model.tone)
        for model, score in zip(models, accuracy, strict=True)
        if score
    ]
    return dot_chart(dots, title="Accuracy on held-out problems", end=1.0, unit="%") if dots else Markup("")


def _bits_chart(models: list[Model], baselines: list[str], row: BitsRow | None) -> Markup:
    """A source's bits per byte: models and baselines, one under another."""
    if row is None:
        return Markup("")
    dots = [
        Dot(model.name, score.value, _or(score.low, score.value), _or(score.high, score.value), score.bits, model.tone)
        for model, score in zip(models, row.models, strict=True)
        if score
    ]
    for name, shown in zip(baselines, row.baselines, strict=True):
        if shown != NONE:
            dots.append(Dot(name, float(shown), float(shown), float(shown), shown, 6))
    of = "all held-out text" if row.source == ALL else f"held-out {row.source}"
    return dot_chart(dots, title=f"Bits per byte of {of}") if dots else Markup("")


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _conversations(samples: list[dict[str, Any]], models: list[Model]) -> list[Conversation]:
    problems: dict[str, dict[str, dict[str, Any]]] = {}
    for row in samples:
        key = str(row.get("id") or row.get("question"))
        problems.setdefault(key, {})[str(row.get("model"))] = row
    conversations = []
    for answers in problems.values():
        first = next(iter(answers.values()))
        replies = []
        for model in models:
            row = answers.get(model.name)
            if row is not None:
                right = row.get("correct")
                verdict = bool(right) if isinstance(right, (bool, int, float)) else None
                replies.append(Reply(model, excerpt(row.get("reply"), REPLY_CHARACTERS), verdict))
        conversations.append(
            Conversation(
                str(first.get("kind") or ""),
                excerpt(first.get("question"), REPLY_CHARACTERS),
                excerpt(first.get("answer"), 100),
                replies,
            )
        )
    return conversations


def problems_scored(evaluation: Evaluation) -> str:
    """How many problems the accuracies rest on, in words."""
    sizes = sorted({score.n for score in evaluation.accuracy if score and score.n})
    return " or ".join(count(size) for size in sizes)


def change(scores: list[Score | None], index: int) -> str:
    """What a score gained over the one before it, in points: + 3.1."""
    before = next((score for score in reversed(scores[:index]) if score), None)
    score = scores[index]
    if not before or not score:
        return ""
    points = (score.value - before.value) * 100
    return f"{'+' if points >= 0 else '−'} {number(round(abs(points), 1), 3)}"
