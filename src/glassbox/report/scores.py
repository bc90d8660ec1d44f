"""Scores with their intervals and protocols: accuracy for each way of asking, bits per byte beside the baselines."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows, read_run
from glassbox.report.charts import Dot, dot_chart
from glassbox.report.conversations import WAYS, Conversation, conversations
from glassbox.report.format import count, excerpt, is_number, percent
from glassbox.report.needle import Needles, needles
from glassbox.report.overview import Model, scored_models

BITS = "bits_per_byte"
ACCEPTANCE = re.compile(r"acceptance(?:_(\d+))?")
"""The metric of a multi-token block, the first if there is no number."""
ALL = "all"
"""The source of a bits-per-byte row that names none."""
FOR_REPLIES = re.compile(r"sampling|problems|template")
"""Parts of a protocol that concern replies to problems and not bits per byte."""


@dataclass(frozen=True)
class Score:
    """One measured value with its interval."""

    value: float
    low: float
    high: float
    n: int | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Score | None":
        """A row of scores.json; None if it has no value. Without an interval, the value stands for it."""
        value = row.get("value")
        if not is_number(value) or value is None:
            return None
        low, high = (float(row[key]) if is_number(row.get(key)) else float(value) for key in ("low", "high"))
        return cls(float(value), low, high, int(row["n"]) if is_number(row.get("n")) else None)

    @property
    def percent(self) -> str:
        return percent(self.value)

    @property
    def percents(self) -> str:
        """The interval of a share: 54.1 to 59.8; empty if there is none."""
        return f"{self.low * 100:.1f} to {self.high * 100:.1f}" if self.low < self.high else ""

    @property
    def bits(self) -> str:
        return f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}" if self.low < self.high else ""


Scores = list[Score | None]
"""A score for each model, in the order of the evaluation's models."""


@dataclass(frozen=True)
class Accuracy:
    """Share of problems solved, for one way of asking: two ways never share a column."""

    metric: str
    title: str
    scores: Scores
    kinds: list[tuple[str, Scores]]
    chart: Markup
    protocol: list[str]

    @property
    def problems(self) -> str:
        """How many problems the scores rest on, in words."""
        sizes = sorted({score.n for score in self.scores if score and score.n})
        return f"{' or '.join(map(count, sizes))} problems" if sizes else ""

    def gain(self, models: list[Model], model: Model) -> str:
        """What a model gained over the one it was trained from, in points: + 3.1; empty if either has no score."""
        by_name = {other.name: score for other, score in zip(models, self.scores, strict=True)}
        before, score = by_name.get(model.start or ""), by_name[model.name]
        if not before or not score:
            return ""
        points = (score.value - before.value) * 100
        return f"{'−' if points < 0 else '+'} {abs(points):.1f}"


@dataclass(frozen=True)
class Bits:
    """Bits per byte of one source: every model beside the baselines."""

    source: str
    title: str
    scores: Scores
    baselines: list[float | None]
    chart: Markup


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluate stage leaves."""

    stage: str
    models: list[Model]
    accuracy: list[Accuracy]
    """The first is the page's headline."""
    bits: list[Bits]
    baselines: list[str]
    bits_shown: Bits | None
    """The headline's row: the one with most baselines, then the one of all sources, then the first."""
    bits_protocol: list[str]
    acceptance: list[tuple[str, Scores]]
    """(source, and which block) -> share of tokens that a multi-token block drafts as the model itself would choose."""
    acceptance_protocol: list[str]
    needles: Needles | None
    conversations: list[Conversation]


def evaluation(facts: RunFacts, stage: StageFacts) -> Evaluation | None:
    """The scores and samples of an evaluate stage; None if it has left none."""
    scores = as_dict(facts.json(stage, "scores.json"))
    rows = [row for row in as_rows(scores.get("rows")) if Score.of(row)]
    samples = facts.lines(stage, "samples.jsonl")
    if not rows and not samples:
        return None
    models = scored_models(facts, [*rows, *samples])
    protocol, baselines = as_dict(scores.get("protocol")), as_dict(scores.get("baselines"))
    metrics = dict.fromkeys(str(row.get("metric")) for row in rows)
    asked = sorted((name for name in metrics if name.startswith("exact_match")), key=lambda name: name != "exact_match")
    bits = _bits(rows, models, baselines)
    return Evaluation(
        stage=stage.name,
        models=models,
        accuracy=[_accuracy(metric, rows, models, protocol) for metric in asked],
        bits=bits,
        baselines=list(baselines),
        bits_shown=max(bits, key=lambda row: (len(_known(row.baselines)), row.source == ALL), default=None),
        bits_protocol=protocol_parts(protocol, BITS),
        acceptance=_acceptance(rows, models),
        acceptance_protocol=protocol_parts(protocol, "acceptance"),
        needles=needles(facts, stage, models),
        conversations=conversations(samples, models),
    )


def score_rows(run: Path) -> list[tuple[str, ...]]:
    """The scores of a run's last finished evaluate stage as lines of text, a header first; empty if it has none."""
    facts = read_run(run)
    found = [result for stage in facts.kinds("evaluate") if (result := evaluation(facts, stage))]
    if not found:
        return []
    last = found[-1]
    shown, drafted = last.bits_shown, next((scores for name, scores in last.acceptance if name == ALL), None)
    rows = [
        (
            "model",
            *(accuracy.title for accuracy in last.accuracy),
            *([f"bits per byte, {shown.title}"] if shown else []),
            *(["drafts accepted"] if drafted else []),
        )
    ]
    for place, model in enumerate(last.models):
        accuracies = [accuracy.scores[place] for accuracy in last.accuracy]
        cells = [f"{score.percent} ({score.percents})" if score else "" for score in accuracies]
        bits = shown.scores[place] if shown else None
        believed = drafted[place] if drafted else None
        rows.append(
            (
                model.name,
                *cells,
                *([f"{bits.bits} ({bits.interval})" if bits else ""] if shown else []),
                *([f"{believed.percent} ({believed.percents})" if believed else ""] if drafted else []),
            )
        )
    for name, value in zip(last.baselines, shown.baselines if shown else [], strict=True) if shown else []:
        cells = [*[""] * len(last.accuracy), f"{value:.3f}" if value is not None else ""]
        rows.append((name, *cells, *([""] if drafted else [])))
    return rows


def protocol_parts(protocol: dict[str, Any], metric: str) -> list[str]:
    """How a score was measured: the metric's own part of the protocol first, then what holds for every metric."""
    own = protocol.get(metric)
    shared = {
        key: value
        for key, value in protocol.items()
        if key not in (BITS, "acceptance")
        and not key.startswith(("exact_match", "needle"))
        and not (metric in (BITS, "acceptance") and FOR_REPLIES.match(key))
    }
    return [*([own] if isinstance(own, str) else _pairs(as_dict(own))), *_pairs(shared)]


def _pairs(value: dict[str, Any]) -> list[str]:
    parts: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            parts += _pairs(item)
        elif item is not None:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            shown = text[:12] if re.fullmatch(r"[0-9a-f]{32,}", text) else excerpt(text, 90)
            parts.append(f"{key.replace('_', ' ')} {shown}")
    return parts


def _accuracy(metric: str, rows: list[dict[str, Any]], models: list[Model], protocol: dict[str, Any]) -> Accuracy:
    """Every model's score over all problems, and for each kind of problem."""
    table: dict[str, dict[str, Score | None]] = {}
    for row in rows:
        if row.get("metric") == metric:
            table.setdefault(str(row.get("kind") or ALL), {})[str(row.get("model"))] = Score.of(row)
    by_kind = {kind: [found.get(model.name) for model in models] for kind, found in sorted(table.items())}
    whole = by_kind.pop(ALL, [None] * len(models))
    title = WAYS.get(metric, metric.replace("_", " "))
    dots = [_dot(model, score, score.percent) for model, score in zip(models, whole, strict=True) if score]
    chart = dot_chart(dots, title=f"Accuracy on held-out problems, {title}", end=1.0, unit="%") if dots else Markup("")
    return Accuracy(metric, title, whole, list(by_kind.items()), chart, protocol_parts(protocol, metric))


def _bits(rows: list[dict[str, Any]], models: list[Model], baselines: dict[str, Any]) -> list[Bits]:
    table: dict[str, dict[str, Score | None]] = {}
    for row in rows:
        if row.get("metric") == BITS:
            table.setdefault(str(row.get("source") or ALL), {})[str(row.get("model"))] = Score.of(row)
    found = []
    beside = {source: [_baseline(value, source) for value in baselines.values()] for source in table}
    highest = [score.high for by_model in table.values() for score in by_model.values() if score]
    highest += [value for values in beside.values() for value in values if value is not None]
    for source, by_model in table.items():
        title = "all held-out text" if source == ALL else f"held-out {source}"
        scores = [by_model.get(model.name) for model in models]
        dots = [_dot(model, score, score.bits) for model, score in zip(models, scores, strict=True) if score]
        dots += [
            Dot(name, value, value, value, f"{value:.3f}", 6)
            for name, value in zip(baselines, beside[source], strict=True)
            if value is not None
        ]
        chart = dot_chart(dots, title=f"Bits per byte of {title}", end=1.06 * max(highest)) if dots else Markup("")
        found.append(Bits(source, title, scores, beside[source], chart))
    return found


def _acceptance(rows: list[dict[str, Any]], models: list[Model]) -> list[tuple[str, Scores]]:
    table: dict[str, dict[str, Score | None]] = {}
    for row in rows:
        match = ACCEPTANCE.fullmatch(str(row.get("metric")))
        if match:
            block = f", block {match[1]}" if match[1] else ""
            table.setdefault(f"{row.get('source') or ALL}{block}", {})[str(row.get("model"))] = Score.of(row)
    return [(name, [found.get(model.name) for model in models]) for name, found in table.items()]


def _dot(model: Model, score: Score, shown: str) -> Dot:
    return Dot(model.name, score.value, score.low, score.high, shown, model.tone)


def _baseline(value: Any, source: str) -> float | None:
    if isinstance(value, dict):
        value = value.get(source)
    return float(value) if is_number(value) else None


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]
