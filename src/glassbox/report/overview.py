"""The head of the page, the stage graph and what each stage took."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from glassbox.ledger.run import code_version
from glassbox.report.artefacts import OUTCOMES, RunFacts, StageFacts, as_dict
from glassbox.report.format import NONE, duration, energy, instant, is_number, money, size
from glassbox.report.graph import Node, draw_graph

TONES = {"pretrain": 1, "sft": 2, "dpo": 3, "grpo": 4}
"""The colour of a model in every chart, by the kind of stage that made it."""


@dataclass(frozen=True)
class Head:
    """The first lines of the page."""

    name: str
    description: str
    state: str
    """How many stages are finished, in words."""
    facts: list[tuple[str, str]]
    codes: list[tuple[str, list[str]]]
    """(code version, stages it made), in the order of the stages."""
    drift: str
    """What to say when not all of the run was made by one version of the code, or by another than this; else empty."""


@dataclass(frozen=True)
class Cost:
    """A line of the table of costs, ready to show."""

    name: str
    kind: str
    state: str
    cells: tuple[str, ...]
    """time, CPU time, peak memory, energy, cost."""
    share: float
    """Of the run's time, 0 to 1."""


@dataclass(frozen=True)
class Stages:
    """The graph and the table under it."""

    graph: Markup
    costs: list[Cost]
    total: tuple[str, ...]
    aside: str
    """What the table does not count, in a sentence; else empty."""


@dataclass(frozen=True)
class Model:
    """A scored model: the stage that made it, its colour, and the model it was trained from."""

    name: str
    kind: str
    tone: int
    start: str | None = None


def scored_models(facts: RunFacts, rows: list[dict[str, Any]]) -> list[Model]:
    """The models that rows name, in the recipe's order; those of no stage after them."""
    named = dict.fromkeys(str(row["model"]) for row in rows if row.get("model") is not None)
    makers = {stage.name: stage for stage in facts.stages if stage.gives == "model"}
    models = []
    for name, stage in makers.items():
        if name in named:
            start = next((source for source in stage.inputs if source in makers), None)
            models.append(Model(name, stage.kind, TONES.get(stage.kind, 5), start))
    return models + [Model(name, "model", 5) for name in named if name not in makers]


def head(facts: RunFacts) -> Head:
    """Name, time, cost, machine and code of the run."""
    done = [stage for stage in facts.stages if stage.done]
    records = [stage.record for stage in facts.stages if stage.record]
    moments = sorted(str(record["finished"]) for record in records if record.get("finished"))
    when = NONE
    if moments:
        first, last = instant(moments[0]), instant(moments[-1])
        when = last if first == last else f"{first} to {last[11:] if first[:10] == last[:10] else last}"
    codes: dict[str, list[str]] = {}
    for stage in done:
        codes.setdefault(stage.code or "unknown", []).append(stage.name)
    return Head(
        name=facts.recipe.name,
        description=facts.recipe.description,
        state=_progress(facts.stages),
        facts=[
            ("Stages finished", when),
            ("Time", duration(_total(records, "seconds"))),
            ("Energy, estimated", energy(_total(records, "energy_wh"))),
            ("Cost, estimated", money(_total(records, "cost_usd"))),
            ("Machine", _machines(records)),
            ("Seed", str(facts.recipe.seed)),
        ],
        codes=list(codes.items()),
        drift=_drift(codes),
    )


def stages(facts: RunFacts) -> Stages:
    """The lineage graph and the table of time, memory, energy and money."""
    nodes = [
        Node(stage.name, stage.kind, stage.state, _took(stage), stage.fingerprint, stage.inputs)
        for stage in facts.stages
    ]
    records = [stage.record for stage in facts.stages]
    whole = _total(records, "seconds") or 0.0
    costs = [
        Cost(
            stage.name,
            stage.kind,
            stage.state,
            _cells(stage.record),
            min(1.0, _number(stage.record, "seconds") / whole) if whole else 0.0,
        )
        for stage in facts.stages
    ]
    peak = max((_number(record, "peak_memory_bytes") for record in records), default=0.0)
    total = {
        **{key: _total(records, key) for key in ("seconds", "cpu_seconds", "energy_wh", "cost_usd")},
        "peak_memory_bytes": peak or None,
    }
    return Stages(draw_graph(nodes), costs, _cells(total), _aside(facts))


def _took(stage: StageFacts) -> str:
    seconds = stage.record.get("seconds")
    return duration(seconds) if is_number(seconds) and stage.state != "waiting" else stage.state


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        duration(record.get("seconds")),
        duration(record.get("cpu_seconds")),
        size(record.get("peak_memory_bytes")),
        energy(record.get("energy_wh")),
        money(record.get("cost_usd")),
    )


def _progress(all_stages: list[StageFacts]) -> str:
    done = sum(stage.done for stage in all_stages)
    words = f"All {done}" if done == len(all_stages) else f"{done} of {len(all_stages)}"
    words += " stages finished"
    outdated = [stage.name for stage in all_stages if stage.state == "outdated"]
    if outdated:
        words += f"; made from earlier inputs: {', '.join(outdated)}"
    return words


def _machines(records: Iterable[dict[str, Any]]) -> str:
    found: dict[str, None] = {}
    for record in records:
        machine = as_dict(record.get("machine"))
        if machine:
            cores = machine.get("cores")
            parts = (
                str(machine.get("system", "")),
                f"{cores} cores" if is_number(cores) else "",
                f"Python {machine['python']}" if machine.get("python") else "",
            )
            found[" · ".join(part for part in parts if part)] = None
    return "; ".join(found) or NONE


def _drift(codes: dict[str, list[str]]) -> str:
    if len(codes) > 1:
        return f"{len(codes)} versions of the code made this run; `--fresh STAGE` makes a stage again with this one."
    if codes and code_version() not in codes:
        return "The code has changed since the run was made."
    return ""


def _aside(facts: RunFacts) -> str:
    """Attempts that the table leaves out: broken off, or finished under settings that were changed later."""
    current = {(stage.name, stage.fingerprint) for stage in facts.stages}
    shown = {stage.record.get("sha256") for stage in facts.stages}
    others = [record for record in facts.records if record.get("sha256") not in shown and "stage" in record]
    broken = [record for record in others if record.get("event") in OUTCOMES]
    earlier = [
        record
        for record in others
        if record.get("event") == "finished" and (record.get("stage"), record.get("fingerprint")) not in current
    ]
    parts = []
    if broken:
        parts.append(f"{_attempts(len(broken))} broken off ({energy(_total(broken, 'energy_wh'))})")
    if earlier:
        parts.append(f"{_attempts(len(earlier))} under earlier settings ({duration(_total(earlier, 'seconds'))})")
    return f"Not in the table: {' and '.join(parts)}." if parts else ""


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count:,} attempts"


def _number(record: dict[str, Any], key: str) -> float:
    value = record.get(key)
    return float(value) if is_number(value) and value is not None else 0.0


def _total(records: Iterable[dict[str, Any]], key: str) -> float | None:
    values = [_number(record, key) for record in records if is_number(record.get(key))]
    return sum(values) if values else None
