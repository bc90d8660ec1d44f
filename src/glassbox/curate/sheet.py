"""The sheet for human checks: people say keep or drop without knowing what the rules said; agreement is computed."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from glassbox.errors import RequestError

VERDICTS = ("keep", "drop")


def agreement(filled: Path, stage: Path) -> dict[str, Any]:
    """How far the verdicts filled in on a sheet agree with what the stage decided.

    Gives documents judged, the share of agreement with its 95 % interval (Wilson), Cohen's kappa, and the counts of
    each pair of verdicts. Raises RequestError for a sheet without verdicts, with other words than keep and drop, or of
    another run.
    """
    human = _read(filled)
    if not human:
        raise RequestError(f"{filled}: no verdict is filled in; write keep or drop in the column `verdict`")
    machine = dict(_decided(stage, set(human)))
    if missing := set(human) - set(machine):
        raise RequestError(f"{filled}: document {min(missing)} is not in {stage}; is the sheet from another run?")
    pairs = {f"{a}/{b}": 0 for a in VERDICTS for b in VERDICTS}
    for name, verdict in human.items():
        pairs[f"{verdict}/{machine[name]}"] += 1
    n, same = len(human), pairs["keep/keep"] + pairs["drop/drop"]
    keep = (pairs["keep/keep"] + pairs["keep/drop"]) / n, (pairs["keep/keep"] + pairs["drop/keep"]) / n
    chance = keep[0] * keep[1] + (1 - keep[0]) * (1 - keep[1])
    low, high = wilson(same, n)
    return {
        "documents": n,
        "agreement": same / n,
        "low": low,
        "high": high,
        "kappa": (same / n - chance) / (1 - chance) if chance < 1 else 1.0,
        "human/machine": pairs,
        "disagreed": sorted(name for name in human if human[name] != machine[name]),
    }


def wilson(same: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    share, spread = same / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _read(path: Path) -> dict[str, str]:
    """Document -> keep or drop, of the rows that are filled in."""
    verdicts = {}
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not rows.fieldnames or not {"id", "verdict"} <= set(rows.fieldnames):
                raise RequestError(f"{path} is no sheet: it needs the columns id and verdict")
            for number, row in enumerate(rows, 2):
                verdict = (row["verdict"] or "").strip().lower()
                if verdict and verdict not in VERDICTS:
                    raise RequestError(f"{path}, row {number}: '{verdict}' is no verdict; write keep or drop")
                if verdict:
                    verdicts[row["id"]] = verdict
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path} cannot be read as a sheet: {error}") from error
    return verdicts


def _decided(stage: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    for folder, verdict in (("documents", "keep"), ("dropped", "drop")):
        for path in sorted((stage / folder).glob("*.parquet")):
            ids = pq.read_table(path, columns=["id"])["id"]
            yield from ((name, verdict) for name in pc.unique(ids).to_pylist() if name in wanted)


def save(result: dict[str, Any], path: Path) -> None:
    """Keep the agreement where the report finds it."""
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
