"""What each training stage shows: its curves, its experts, its size and pace."""

import re
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from glassbox.recipe.training import PretrainStage
from glassbox.report.artefacts import RunFacts, StageFacts, as_dict
from glassbox.report.charts import Line, Point, heat_map, line_chart
from glassbox.report.events import event_table
from glassbox.report.format import count, duration, is_number, number
from glassbox.report.tables import Table
from glassbox.report.tasks import task_scores


@dataclass(frozen=True)
class Panel:
    """A chart that is drawn if the stage recorded what it shows."""

    title: str
    unit: str
    """What a value is; empty: the unit of the stage's loss."""
    pattern: str
    """Names of the metrics it shows, as a regular expression; a group in it names the line."""
    from_zero: bool = False
    noisy: bool = False


PANELS = (
    Panel("Reward", "mean over the step's completions", r"reward", noisy=True),
    Panel("Groups without signal", "share whose rewards are all equal", r"groups_without_signal", True, True),
    Panel("Completion length", "tokens", r"completion_tokens", True, True),
    Panel("Margin", "chosen minus rejected reward", r"margin", noisy=True),
    Panel("Preference accuracy", "share of pairs with a positive margin", r"accuracy", noisy=True),
    Panel("Implicit rewards", "β times log-ratio to the reference", r"reward_(chosen|rejected)", noisy=True),
    Panel("Loss", "", r"loss", noisy=True),
    Panel("Held-out bits per byte", "in the loop", r"(?!task/)(?:.*[/.])?(?:bits_per_byte|bpb)(?:[/._](.+))?"),
    Panel("Tasks", "share right, in the loop", r"task/(.+)/(?:acc|len_norm|exact_match)"),
    Panel("Right answers of tasks", "bits per byte, in the loop", r"task/(.+)/bpb"),
    Panel("Loss ahead", "nats a token, mean over multi-token blocks", r"multi_token_loss", noisy=True),
    Panel("Drafts accepted", "share of held-out tokens, in the loop", r"acceptance[_/](.+)"),
    Panel("Learning rate", "after warm-up and decay", r"lr", True),
    Panel("Gradient norm", "before clipping", r"grad_norm", True, True),
    Panel("Throughput", "tokens a second", r"tokens_per_second", True, True),
    Panel("Model FLOP utilisation", "share of the device's peak", r"mfu", True, True),
    Panel("Expert load", "largest over mean; 1 is even", r"expert_load_max_over_mean", noisy=True),
    Panel("Expert load", "over the mean", r"expert_load_(max|min|mean)", True, True),
    Panel("Router loss", "balance and z-loss, weighted", r"router_loss", noisy=True),
    Panel("Loss scale", "fp16", r"loss_scale"),
    Panel("Steps skipped", "fp16 overflows so far", r"skipped_steps", True),
    Panel("Entropy", "nats a token", r"entropy", True, True),
    Panel("Divergence from the start", "nats a token", r"kl", True, True),
    Panel("How replies end", "share of completions", r"(truncated|no_answer|not_judged)", True),
)
"""In the order they are shown; a metric goes to the first panel that asks for it."""
TONES = 6
"""Lines of a chart, each in a colour of its own; more go to further charts."""
LOSS_UNITS = {
    "pretrain": "nats a token",
    "sft": "nats a token of the assistant",
    "dpo": "nats a pair",
    "grpo": "policy objective",
}
SILENT = {"step", "time", "tokens", "flops_per_second"}
"""Numbers of the metrics stream that are no curve of their own."""


@dataclass(frozen=True)
class Axis:
    """The steps that all charts of a stage span."""

    reach: float
    marks: list[tuple[float, str]]
    """(first step, name) of each phase."""


@dataclass(frozen=True)
class Chart:
    """A drawn panel."""

    title: str
    unit: str
    svg: Markup
    legend: list[tuple[int, str]]
    """(tone, name) of each line; empty for a single one that the title names."""
    last: str
    """The last value of a single line."""


@dataclass(frozen=True)
class Training:
    """One training stage."""

    name: str
    kind: str
    state: str
    facts: list[tuple[str, str]]
    charts: list[Chart]
    others: list[Chart]
    """Metrics that no panel asks for."""
    experts: Markup
    tasks: Table | None
    events: Table | None
    aside: str


def training(facts: RunFacts, stage: StageFacts) -> Training | None:
    """The curves and figures of a stage that trains; None if it has not begun to write any."""
    rows = facts.lines(stage, "metrics.jsonl")
    summary = as_dict(facts.json(stage, "summary.json"))
    if not rows and not summary:
        return None
    series, broken = collect(rows)
    axis = Axis(max((points[-1][0] for points in series.values()), default=1.0), phase_marks(stage))
    charts, used = _panels(series, axis, LOSS_UNITS.get(stage.kind, ""))
    rest = {name: points for name, points in series.items() if name not in used | SILENT and len(points) > 1}
    shown = {name.replace("_", " "): points for name, points in rest.items()}
    others = [_chart(name, "", [(name.lower(), points)], axis, noisy=True) for name, points in shown.items()]
    return Training(
        name=stage.name,
        kind=stage.kind,
        state=stage.state,
        facts=_figures(stage, summary, series),
        charts=charts,
        others=others,
        experts=_experts(facts, stage, summary),
        tasks=task_scores(facts, stage),
        events=event_table(facts, stage),
        aside=_aside(broken),
    )


def collect(rows: list[dict[str, Any]]) -> tuple[dict[str, list[Point]], int]:
    """Metric -> its (step, value) points in order of steps, and how many values were not finite and left out.

    Nested values are joined by `/`. A step that stands twice (a resumed run) keeps its last value.
    """
    found: dict[str, dict[float, float]] = {}
    broken = 0
    for row in rows:
        step = row.get("step")
        if not is_number(step) or step is None:
            continue
        for name, value in _flat(row):
            if is_number(value):
                found.setdefault(name, {})[float(step)] = float(value)
            elif isinstance(value, float):
                broken += 1
    return {name: sorted(points.items()) for name, points in found.items()}, broken


def phase_marks(stage: StageFacts) -> list[tuple[float, str]]:
    """(first step, name) of each phase of pretraining; none if there is only one."""
    settings = stage.settings
    if not isinstance(settings, PretrainStage) or len(settings.phases) < 2:
        return []
    marks, step = [], 0.0
    for phase in settings.phases:
        marks.append((step, phase.name))
        step += phase.total_steps
    return marks


def _flat(row: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}/")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _panels(series: dict[str, list[Point]], axis: Axis, loss_unit: str) -> tuple[list[Chart], set[str]]:
    charts, used = [], set[str]()
    for panel in PANELS:
        lines = []
        for name, points in series.items():
            match = re.fullmatch(panel.pattern, name)
            if match and name not in used:
                label = next((group for group in match.groups() if group), panel.title.lower())
                lines.append((label.replace("_", " "), points))
                used.add(name)
        parts = -(-len(lines) // TONES)
        for part in range(parts):
            title = panel.title if part == 0 else f"{panel.title} ({part + 1})"
            some = lines[part * len(lines) // parts : (part + 1) * len(lines) // parts]
            charts.append(_chart(title, panel.unit or loss_unit, some, axis, panel.from_zero, panel.noisy))
    return charts, used


def _chart(
    title: str,
    unit: str,
    lines: list[tuple[str, list[Point]]],
    axis: Axis,
    from_zero: bool = False,
    noisy: bool = False,
) -> Chart:
    drawn = [
        Line(name, tuple(points), tone=index + 1, noisy=noisy and len(lines) == 1)
        for index, (name, points) in enumerate(lines)
    ]
    svg = line_chart(drawn, title=title, reach=axis.reach, marks=axis.marks, from_zero=from_zero)
    alone = len(drawn) == 1
    legend = [] if alone and drawn[0].name == title.lower() else [(line.tone, line.name) for line in drawn]
    return Chart(title, unit, svg, legend, number(drawn[0].points[-1][1]) if alone else "")


def _figures(stage: StageFacts, summary: dict[str, Any], series: dict[str, list[Point]]) -> list[tuple[str, str]]:
    """What is worth a tile: parameters, tokens, steps, seconds; then the other plain numbers of the summary."""
    flat = dict(_flat(summary))
    figures = []
    for label, pattern, shown in (
        ("Parameters", r"(?:parameters/total|parameters|total_parameters)", count),
        ("Active a token", r"(?:parameters/active|active_parameters|parameters_active)", count),
        ("In embeddings", r"(?:parameters/embedding|embedding_parameters|parameters_embedding)", count),
        ("Steps", r"steps?", count),
        ("Tokens", r"tokens", count),
        ("Tokens with loss", r"labels|labelled_tokens", count),
        ("Training time", r"seconds", duration),
        ("FLOPs", r"flops", count),
    ):
        name = next((name for name, value in flat.items() if re.fullmatch(pattern, name) and is_number(value)), None)
        if name:
            figures.append((label, shown(flat.pop(name))))
    known = {label for label, _ in figures}
    steps = max((points[-1][0] for points in series.values()), default=None)
    if "Steps" not in known and steps is not None:
        figures.append(("Steps" if stage.done else "Steps so far", count(steps)))
    if "Tokens" not in known and series.get("tokens"):
        figures.append(("Tokens", count(series["tokens"][-1][1])))
    figures += _balancing(stage)
    figures += [
        (name.replace("_", " ").replace("/", " ").capitalize(), number(value))
        for name, value in flat.items()
        if is_number(value) and not name.startswith(("expert_load", "held_out"))
    ]
    return figures


def _balancing(stage: StageFacts) -> list[tuple[str, str]]:
    """What keeps the experts of a pretraining stage evenly loaded."""
    experts = stage.settings.model.experts if isinstance(stage.settings, PretrainStage) else None
    if experts is None:
        return []
    losses = {"loss": experts.balance_loss, "loss over each row": experts.sequence_loss}
    means = [f"{name} {number(weight)}" for name, weight in losses.items() if weight]
    if experts.score_bias:
        means.insert(0, "score bias")
    if not experts.balance_loss:
        means.append("no loss over the batch")
    return [("Balanced by", ", ".join(means))]


def _experts(facts: RunFacts, stage: StageFacts, summary: dict[str, Any]) -> Markup:
    """The last step's load of each expert, from the summary or the newest checkpoint; empty for a dense network."""
    load = summary.get("expert_load")
    if not load:
        states = sorted(stage.folder.glob("checkpoints/step-*/state.json"))
        state = facts.json(stage, *states[-1].relative_to(stage.folder).parts) if states else None
        load = as_dict(as_dict(state).get("progress")).get("expert_load")
    if not isinstance(load, list) or not load:
        return Markup("")
    if not all(isinstance(row, list) and row and all(map(is_number, row)) for row in load):
        return Markup("")
    shares = [[value / (sum(row) or 1.0) for value in row] for row in load]
    return heat_map(shares, title="Share of tokens per expert at the end")


def _aside(broken: int) -> str:
    if not broken:
        return ""
    return f"{broken:,} value{'s' if broken != 1 else ''} of the metrics stream were not finite and are not drawn."
