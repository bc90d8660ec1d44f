"""What happened in a training stage and did not end it: spikes, overflowing numbers, slow processes and the like."""

from typing import Any

from glassbox.ledger.record import incidents
from glassbox.report.artefacts import RunFacts, StageFacts
from glassbox.report.format import count, excerpt, instant, number
from glassbox.report.tables import Table

KNOWN = {"event", "stage", "at", "what", "step", "done", "previous", "sha256"}
"""Keys of a record that have a column of their own, or none."""
SHOWN = 40
LONGEST = 200
"""Characters of a detail."""


def event_table(facts: RunFacts, stage: StageFacts) -> Table | None:
    """The stage's events since it was first started with its settings as they are, newest first; None without any."""
    found = incidents(facts.records, stage.name, stage.fingerprint)
    if not found:
        return None
    return Table(
        ["When", "Step", "Event", "Done", "Details"], [_row(record) for record in reversed(found)], SHOWN, True
    )


def _row(record: dict[str, Any]) -> list[str]:
    details = (f"{key.replace('_', ' ')} {number(value)}" for key, value in record.items() if key not in KNOWN)
    what, done = (str(record.get(key) or "") for key in ("what", "done"))
    return [instant(record.get("at")), count(record.get("step")), what, done, excerpt(", ".join(details), LONGEST)]
