"""How good the models of curation are on what they have not seen: classifiers of documents, and of lines (clutter)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows, whole
from glassbox.report.charts import Line
from glassbox.report.format import count, excerpt, is_number, number, percent
from glassbox.report.squares import confusion_map, share_chart
from glassbox.report.tables import Table
from glassbox.report.training import Chart

MOST_IN_MAP = 20
"""Classes of which the whole confusion matrix is drawn; of more, the commonest confusions are listed."""
CONFUSIONS_SHOWN = 12
NGRAMS_SHOWN = 8


@dataclass(frozen=True)
class Quality:
    """One model of curation on its held-out texts or pages."""

    stage: str
    kind: str
    state: str
    facts: list[tuple[str, str]]
    charts: list[Chart]
    tables: list[tuple[str, Table]]
    """(heading, table)."""
    aside: str


def classifier(facts: RunFacts, stage: StageFacts) -> Quality | None:
    """The held-out quality of a classifier stage; None before it is finished."""
    report = as_dict(facts.json(stage, "quality.json"))
    if not report:
        return None
    names = [str(name) for name in report["names"]] if isinstance(report.get("names"), list) else []
    scores = report.get("task") == "scores"
    figures = [
        ("Trained on", f"{count(report.get('trained_on'))} texts"),
        ("Held out", f"{count(report.get('held_out'))} texts"),
        ("Scores" if scores else "Classes", count(len(names))),
    ]
    if not scores:
        wanted = (("Accuracy", "accuracy"), ("Macro F1", "macro_f1"), ("Calibration error", "calibration_error"))
        figures += [(label, _measure(report.get(key))) for label, key in wanted]
    counts = _square(report.get("confusion"), len(names))
    tables = [
        ("By score" if scores else "By class", _by_name(report, "scores" if scores else "classes")),
        ("Commonest confusions", _confusions(counts, names) if len(names) > MOST_IN_MAP else None),
        ("Where the labels come from", _label_sources(report)),
    ]
    return Quality(
        stage=stage.name,
        kind="classifier of documents",
        state=stage.state,
        facts=figures,
        charts=[chart for chart in (_calibration(report), _confusion(counts, names)) if chart],
        tables=[(heading, table) for heading, table in tables if table],
        aside=_left_out(report),
    )


def clutter(facts: RunFacts, stage: StageFacts) -> Quality | None:
    """The held-out quality of a line model of clutter, beside keeping every line; None before it is finished."""
    report = as_dict(facts.json(stage, "quality.json"))
    if not report:
        return None
    curve = {name: as_dict(row) for name, row in as_dict(report.get("by_threshold")).items()}
    ways = (("The model, threshold 0.5", "model"), ("Keeping every line", "keep_all"))
    rates = ("precision", "recall", "f1")
    rows = [
        [way, *(_measure(row.get(rate)) for rate in rates)] for way, key in ways if (row := as_dict(report.get(key)))
    ]
    table = Table(["Lines of content", *map(_label, rates)], rows)
    chart = _thresholds(curve)
    return Quality(
        stage=stage.name,
        kind="model of lines",
        state=stage.state,
        facts=[
            *(
                (label, _lines(as_dict(report.get(key))))
                for label, key in (("Trained on", "trained_on"), ("Held out", "held_out"))
            ),
            ("Sites", count(report.get("sites"))),
            ("F1", _measure(as_dict(report.get("model")).get("f1"))),
            ("AUC", _measure(report.get("auc"))),
            ("Best threshold", number(report.get("best_threshold"), 3)),
        ],
        charts=[chart] if chart else [],
        tables=[("Against the extractor alone", table)] if rows else [],
        aside=_left_out(report),
    )


def _lines(counts: dict[str, Any]) -> str:
    return f"{count(counts.get('lines'))} lines, {count(counts.get('pages'))} pages"


def _label(key: str) -> str:
    """A name in a file as a person would write it: line_f1 as Line F1."""
    words = [word.upper() if word in ("f1", "auc") else word for word in excerpt(key, 60).split("_")]
    name = " ".join(words)
    return name[:1].upper() + name[1:]


def _measure(value: Any) -> str:
    """Whole numbers as counts, others with three decimals."""
    return f"{value:.3f}" if isinstance(value, float) and is_number(value) else count(value)


def _by_name(report: dict[str, Any], key: str) -> Table | None:
    """Classes or scores with whatever numbers are known of each, and the n-grams that speak for it."""
    rows = {name: as_dict(row) for name, row in as_dict(report.get(key)).items()}
    if not rows:
        return None
    measures = list(dict.fromkeys(name for row in rows.values() for name in row))
    ngrams = as_dict(report.get("ngrams"))
    cells = [
        [excerpt(name, 80), *(_measure(row.get(one)) for one in measures), _ngrams(ngrams.get(name))]
        for name, row in rows.items()
    ]
    title = {"texts": "Held out", "error_of_the_mean": "Error of the mean"}
    columns = ["Score" if key == "scores" else "Class", *(title.get(one, _label(one)) for one in measures)]
    return Table([*columns, "Telling words"], cells, words=True)


def _ngrams(found: Any) -> str:
    return " · ".join(excerpt(one, 40) for one in found[:NGRAMS_SHOWN]) if isinstance(found, list) else ""


def _label_sources(report: dict[str, Any]) -> Table | None:
    sources = {source: as_dict(found) for source, found in as_dict(report.get("texts")).items()}
    if not sources:
        return None
    rows = []
    for source, found in sources.items():
        counts = {name: n for name, n in found.items() if is_number(n)}
        largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6]
        named = ", ".join(f"{excerpt(name, 40)} {count(n)}" for name, n in largest)
        more = f" and {len(counts) - len(largest)} more" if len(counts) > len(largest) else ""
        rows.append([excerpt(source, 120), count(sum(counts.values())), named + more])
    return Table(["Source", "Texts", "Of which"], rows, words=True)


def _left_out(report: dict[str, Any]) -> str:
    gone = [(reason, n) for reason, n in as_dict(report.get("left_out")).items() if is_number(n) and n]
    parts = ", ".join(f"{excerpt(reason, 80)} {count(n)}" for reason, n in gone)
    digest = report.get("training_set")
    known = f"Training set {excerpt(digest, 12).removesuffix(' …')}." if isinstance(digest, str) else ""
    return f"{f'Left out: {parts}. ' if parts else ''}{known}"


def _square(value: Any, side: int) -> list[list[float]]:
    """The confusion matrix if it is one of this size, else none."""
    rows = value if isinstance(value, list) and len(value) == side else []
    fits = all(isinstance(row, list) and len(row) == side and all(is_number(n) and n >= 0 for n in row) for row in rows)
    return rows if fits and side else []


def _confusion(counts: Sequence[Sequence[float]], names: Sequence[str]) -> Chart | None:
    if not counts or len(names) > MOST_IN_MAP:
        return None
    svg = confusion_map(counts, names, title="Confusions")
    return Chart(
        "Confusions", "true class down, what the classifier said across; full colour is all of a class", svg, [], ""
    )


def _confusions(counts: Sequence[Sequence[float]], names: Sequence[str]) -> Table | None:
    """The commonest confusions as (true class, said, texts, share of the true class)."""
    pairs = [
        (counts[a][b], a, b) for a in range(len(counts)) for b in range(len(counts)) if a != b and counts[a][b] > 0
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        [excerpt(names[a], 80), excerpt(names[b], 80), count(n), percent(n / sum(counts[a]))]
        for n, a, b in pairs[:CONFUSIONS_SHOWN]
    ]
    return Table(["True class", "Taken for", "Texts", "Of the true class"], rows) if rows else None


def _calibration(report: dict[str, Any]) -> Chart | None:
    bins = as_rows(report.get("calibration"))
    points = [
        (float(row["probability"]), float(row["right"]))
        for row in bins
        if is_number(row.get("probability")) and is_number(row.get("right")) and whole(row, "texts") > 0
    ]
    if not points:
        return None
    lines = [Line("share right", tuple(sorted(points)), 1)]
    svg = share_chart(lines, title="Calibration", across="probability of the most probable class", diagonal=True)
    return Chart("Calibration", "share that is right; on the dashed line a probability means what it says", svg, [], "")


def _thresholds(curve: dict[str, dict[str, Any]]) -> Chart | None:
    """Precision, recall and F1 by threshold."""
    lines = []
    for tone, rate in enumerate(("precision", "recall", "f1"), 1):
        points = [
            (threshold, row[rate])
            for name, row in curve.items()
            if (threshold := _number(name)) is not None and is_number(row.get(rate))
        ]
        if points:
            lines.append(Line(_label(rate), tuple(sorted(points)), tone))
    if not lines:
        return None
    svg = share_chart(lines, title="By threshold", across="threshold")
    legend = [(line.tone, line.name) for line in lines]
    return Chart("By threshold", "held-out lines; a line stays if its score reaches the threshold", svg, legend, "")


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if is_number(value) else None
