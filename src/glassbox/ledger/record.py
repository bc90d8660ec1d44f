"""`ledger.jsonl`: one line for each thing that happened to a run. Each line holds its own hash and that of the line
before, so that an edited or lost line shows."""

import json
import os
from pathlib import Path
from typing import Any

from glassbox.errors import IntegrityError
from glassbox.ledger.hashing import digest

LEDGER = "ledger.jsonl"


def append_record(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Append `record` (with `previous` and `sha256` added) and flush it to disk; a torn last line is cut off first."""
    path = run / LEDGER
    records, whole_bytes = _read(path)
    if path.exists() and path.stat().st_size > whole_bytes:
        os.truncate(path, whole_bytes)
    record = {**record, "previous": records[-1]["sha256"] if records else None}
    record["sha256"] = digest(record)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return record


def read_records(run: Path) -> list[dict[str, Any]]:
    """All records, oldest first; a torn last line is left out. Raises IntegrityError if the chain is broken."""
    return _read(run / LEDGER)[0]


def incidents(records: list[dict[str, Any]], stage: str, fingerprint: str) -> list[dict[str, Any]]:
    """What happened in a stage, and did not end it, since it was first started with the settings of a fingerprint."""
    own = [record for record in records if record.get("stage") == stage]
    starts = (i for i, record in enumerate(own) if record.get("fingerprint") == fingerprint)
    return [record for record in own[next(starts, 0) :] if record.get("event") == "incident"]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records and the number of bytes they take; what follows them is a line that a kill tore off."""
    records: list[dict[str, Any]] = []
    previous, whole_bytes = None, 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            sound = record["previous"] == previous and record["sha256"] == digest(
                {key: value for key, value in record.items() if key != "sha256"}
            )
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise IntegrityError(f"{path}:{number}: the record does not match its hash")
        records.append(record)
        previous = record["sha256"]
        whole_bytes += len(line)
    return records, whole_bytes
