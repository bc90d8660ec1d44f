"""Every decision about one document, from what the curate stages of a run left: `glassbox explain RUN DOC`."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glassbox.curate.rules.statistics import STATISTICS
from glassbox.curate.rules.verdicts import Asked, explain_rules
from glassbox.errors import RequestError
from glassbox.ledger.hashing import read_manifest
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.schema import Recipe

FEWEST_LETTERS = 6
"""A document may be named by the first letters of its id, but by no fewer than these."""


@dataclass
class Line:
    """A line of a document as it was before cleaning."""

    text: str
    removed: str = ""
    """The step and rule that removed it; "" if it is still there."""
    parts: list[tuple[str, str]] = field(default_factory=list)
    """(step and rule, text) of what was removed from inside it."""


@dataclass(frozen=True)
class Explained:
    """What one curate stage decided about the document."""

    stage: str
    document: dict[str, Any]
    """Its row of `documents/` or `dropped/`."""
    rules: list[Asked]
    """Every rule of its source that was asked, in order."""
    lines: list[Line]

    def verdict(self) -> str:
        """kept, or what dropped it."""
        row = self.document
        if "rule" not in row:
            return "kept"
        other = f", it repeats or holds {row['other']}" if row["other"] else ""
        return f"dropped by {row['stage']}: {row['rule']} ({row['value']:g}, threshold {row['threshold']:g}){other}"

    def facts(self) -> list[tuple[str, str]]:
        """Where it comes from and what was found out about it, as label and value."""
        row = self.document
        counts = [("duplicates", row["duplicates"]), ("used", row["copies"]), ("lines cut", row["lines_cut"])]
        known = [
            ("id", row["id"]),
            ("source", row["source"]),
            ("origin", f"{row['origin']}:{row['offset']}"),
            ("address", row["url"]),
            ("metadata", row["meta"]),
            ("language", f"{row['lang']} ({row['lang_score']:.2f})" if row["lang"] else ""),
            ("category", row["category"]),
            ("scores", ", ".join(f"{name} {score:.3f}" for name, score in row["scores"])),
            ("masked", ", ".join(f"{name} {count}" for name, count in row["masked"])),
            *((label, str(count)) for label, count in counts if count != (label == "used")),
        ]
        return [(label, value) for label, value in known if value]

    def shown(self) -> list[tuple[str, str]]:
        """The lines as they were before cleaning, each with a mark: "-" for one that was removed."""
        rows = []
        for line in self.lines:
            rows.append(("-", f"{line.text}   [{line.removed}]") if line.removed else (" ", line.text))
            rows += [("-", f"    {text}   [{reason}]") for reason, text in line.parts]
        return rows

    def as_data(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "stage": self.stage,
            "verdict": self.verdict(),
            "document": {
                name: dict(value) if name in ("scores", "masked") else value for name, value in self.document.items()
            },
            "rules": [rule._asdict() for rule in self.rules],
            "lines": [asdict(line) for line in self.lines],
        }


def explain(run: Path, recipe: Recipe, name: str) -> list[Explained]:
    """What each curate stage of the run says of the document whose id, first letters of the id, or address is `name`.

    Raises RequestError if there is none, or if the letters fit several.
    """
    found: list[Explained] = []
    for stage, config in recipe.stages.items():
        if isinstance(config, CurateStage):
            rows = list(_rows(run / stage, found[0].document["id"] if found else name))
            if len({row["id"] for row in rows}) > 1:
                ids = ", ".join(sorted(row["id"] for row in rows)[:3])
                raise RequestError(
                    f"'{name}' fits {len(rows)} documents of stage '{stage}' ({ids}, ...); use a whole id"
                )
            made = read_manifest(run / stage)
            config = CurateStage.model_validate(made["settings"]) if made else config
            found += [_explained(stage, config, row) for row in rows]
    if not found:
        raise RequestError(_not_found(run, recipe, name))
    return found


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Documents, kept or dropped, that have this id or address, or an id that begins so."""
    for path in sorted(folder.glob("documents/*.parquet")) + sorted(folder.glob("dropped/*.parquet")):
        with pq.ParquetFile(path) as table:
            for group in range(table.num_row_groups):
                names = table.read_row_group(group, columns=["id", "url"])
                fits = pc.equal(names["url"], name)
                if len(name) >= FEWEST_LETTERS:
                    fits = pc.or_(fits, pc.starts_with(names["id"], name))
                if pc.any(fits).as_py():
                    yield from table.read_row_group(group).filter(fits).to_pylist()


def _explained(stage: str, config: CurateStage, row: dict[str, Any]) -> Explained:
    """`config` is what the stage was made with, whatever the recipe says now."""
    source = next(one for one in config.sources if one.name == row["source"])
    measured = {**row, "characters": row["n_chars"], "words": row["n_words"]}
    values = np.array([measured[name] for name in STATISTICS], np.float32)
    rules = explain_rules(values, row["meta"], row["lang"], source)
    return Explained(stage, row, rules, marked(row["text"], row["cuts"] or []))


def marked(text: str, cuts: list[dict[str, Any]]) -> list[Line]:
    """The lines of the text with those put back, and marked, that cleaning removed: the last step is undone first."""
    lines = [Line(line) for line in text.split("\n")]
    steps = [list(group) for _, group in groupby(cuts, key=lambda cut: cut["step"])]
    for step in reversed(steps):
        lines = list(_undone(lines, step))
    return lines


def _undone(lines: list[Line], cuts: list[dict[str, Any]]) -> Iterator[Line]:
    """The lines that the step was given. A cut says how many lines that are not blank stood before it there."""
    pending, before = list(cuts), 0
    for line in lines:
        if line.text.strip():
            while pending and pending[0]["line"] <= before and pending[0]["column"] < 0:
                yield _gone(pending.pop(0))
                before += 1
            while pending and pending[0]["line"] <= before and pending[0]["column"] >= 0:
                cut = pending.pop(0)
                line.parts.append((_reason(cut), cut["text"]))
            before += 1
        yield line
    yield from (_gone(cut) for cut in pending)


def _gone(cut: dict[str, Any]) -> Line:
    return Line(cut["text"], _reason(cut))


def _reason(cut: dict[str, Any]) -> str:
    return cut["rule"] if cut["rule"] == cut["step"] else f"{cut['step']}: {cut['rule']}"


def _not_found(run: Path, recipe: Recipe, name: str) -> str:
    """Why there is no such document: perhaps it was never read."""
    curated = [stage for stage, config in recipe.stages.items() if isinstance(config, CurateStage)]
    if not curated:
        return f"run '{run.name}' has no curate stage"
    for stage in curated:
        path = run / stage / "skipped.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            row = json.loads(line)
            if name in (row["file"], f"{row['file']}:{row['offset']}"):
                return f"{row['file']} at {row['offset']} gave no document in stage '{stage}': {row['reason']}"
    return (
        f"run '{run.name}' has no document '{name}'; give an id (or its first {FEWEST_LETTERS} letters) or an address "
        f"from {curated[0]}/documents or {curated[0]}/dropped"
    )
