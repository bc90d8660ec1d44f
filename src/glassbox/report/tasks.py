"""The newest scores of the tasks that a stage is scored on while it trains, each with protocol and interval."""

from typing import Any

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows
from glassbox.report.format import count, is_number, percent
from glassbox.report.tables import Table

BITS = "bpb"


def task_scores(facts: RunFacts, stage: StageFacts) -> Table | None:
    """A row for each task, and for each group of one; None if there are none."""
    found = as_dict(facts.json(stage, "task_scores.json"))
    rows = [row for row in as_rows(found.get("rows")) if is_number(row.get("value"))]
    bits = {str(row.get("task")): row for row in rows if row.get("metric") == BITS}
    measured = [row for row in rows if row.get("metric") != BITS]
    if not measured:
        return None
    interval = f"{percent(found.get('confidence'), 0)} interval"
    columns = ["Task", "Form", "Examples", "Items", "Measure", "Right", interval, "Bits per byte", interval, "Data"]
    return Table(columns, [_row(row, bits.get(str(row.get("task")), {})) for row in measured])


def _row(row: dict[str, Any], bits: dict[str, Any]) -> list[str]:
    shots = row.get("shots")
    return [
        str(row.get("task")),
        str(row.get("form")),
        ", ".join(map(str, shots)) if isinstance(shots, list) else "",
        count(row.get("n")),
        str(row.get("metric")),
        percent(row["value"]),
        _interval(row, 100, 1),
        f"{bits['value']:.3f}" if bits else "",
        _interval(bits, 1, 3),
        str(row.get("data_sha256"))[:8],
    ]


def _interval(row: dict[str, Any], scale: float, digits: int) -> str:
    low, high = row.get("low"), row.get("high")
    if not is_number(low) or not is_number(high) or low is None or high is None:
        return ""
    return f"{low * scale:.{digits}f} to {high * scale:.{digits}f}"
