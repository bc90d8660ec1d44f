"""What a run's folder holds, read so that a missing, torn or damaged file becomes a note on the page, not an error."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassbox.errors import IntegrityError
from glassbox.ledger.hashing import manifest_hash, read_manifest
from glassbox.ledger.record import read_records
from glassbox.ledger.run import read_attempt, read_recipe
from glassbox.recipe.base import Stage
from glassbox.recipe.schema import Recipe
from glassbox.report.format import is_number

OUTCOMES = ("interrupted", "failed", "killed")
"""Events of the ledger that end an attempt without a result."""


@dataclass(frozen=True)
class StageFacts:
    """One stage of the run as its folder and the ledger tell it."""

    name: str
    settings: Stage
    folder: Path
    state: str
    """finished, outdated (an input was made anew since), waiting, unfinished, interrupted, failed or damaged."""
    fingerprint: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    """The ledger's record of the attempt: seconds, peak_memory_bytes, energy_wh, cost_usd, machine and so on."""
    code: str = ""

    @property
    def kind(self) -> str:
        return self.settings.kind

    @property
    def gives(self) -> str:
        return self.settings.gives

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.settings.inputs

    @property
    def done(self) -> bool:
        return self.state in ("finished", "outdated")


@dataclass
class RunFacts:
    """A whole run, and the notes about files that could not be read."""

    path: Path
    recipe: Recipe
    stages: list[StageFacts]
    """In the recipe's order: each after those it takes from."""
    records: list[dict[str, Any]]
    notes: list[str]

    def kinds(self, *kinds: str) -> list[StageFacts]:
        """The stages of these kinds, in order."""
        return [stage for stage in self.stages if stage.kind in kinds]

    def json(self, stage: StageFacts, *parts: str) -> Any:
        """The value in a JSON file of a stage; None if it is missing, or damaged (then with a note)."""
        return self.read(stage.folder.joinpath(*parts))

    def read(self, path: Path) -> Any:
        """The value in a JSON file of the run; None if it is missing, or damaged (then with a note)."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.note(f"{path.relative_to(self.path)} is not readable ({type(error).__name__}) and was left out")
            return None

    def lines(self, stage: StageFacts, *parts: str) -> list[dict[str, Any]]:
        """The objects in a JSON-lines file of a stage; broken lines are left out and counted in a note."""
        path = stage.folder.joinpath(*parts)
        rows, broken = [], 0
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    row = _parsed(line)
                    if isinstance(row, dict):
                        rows.append(row)
                    elif line.strip():
                        broken += 1
        except FileNotFoundError:
            return []
        except OSError as error:
            self.note(f"{path.relative_to(self.path)} is not readable ({error.strerror}) and was left out")
        if broken:
            lines = "1 line is" if broken == 1 else f"{broken:,} lines are"
            self.note(f"{path.relative_to(self.path)}: {lines} torn or no JSON object, and left out")
        return rows

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def read_run(path: Path) -> RunFacts:
    """Everything the page says about stages. Raises RequestError if there is no run (no readable recipe.yaml)."""
    recipe, notes = read_recipe(path), []
    try:
        records = read_records(path)
    except IntegrityError as error:
        records = []
        notes.append(f"The ledger's chain of hashes is broken: {_sentence(error, path)}. `glassbox verify` says more.")
    facts = RunFacts(path, recipe, [], records, notes)
    made: dict[str, str | None] = {}
    for name in recipe.order():
        facts.stages.append(_stage(facts, name, made))
    return facts


def _stage(facts: RunFacts, name: str, made: dict[str, str | None]) -> StageFacts:
    settings, folder = facts.recipe.stages[name], facts.path / name
    made[name] = manifest_hash(folder)
    try:
        manifest = read_manifest(folder)
    except IntegrityError as error:
        facts.note(f"{_sentence(error, facts.path)}.")
        return StageFacts(name, settings, folder, "damaged")
    if manifest is None:
        return _unfinished(facts, name, settings, folder)
    fingerprint = str(manifest.get("fingerprint", ""))
    inputs = as_dict(manifest.get("inputs"))
    current = all(made.get(source) == known for source, known in inputs.items())
    record = _last(facts.records, name, fingerprint, ("finished",)) or _attempt(folder)
    state = "finished" if current else "outdated"
    return StageFacts(name, settings, folder, state, fingerprint, record, str(manifest.get("code", "")))


def _unfinished(facts: RunFacts, name: str, settings: Stage, folder: Path) -> StageFacts:
    attempt = _attempt(folder)
    if not attempt:
        return StageFacts(name, settings, folder, "waiting")
    fingerprint = str(attempt.get("fingerprint", ""))
    record = _last(facts.records, name, fingerprint, OUTCOMES)
    state = str(record["event"]) if record and record["event"] != "killed" else "unfinished"
    return StageFacts(name, settings, folder, state, fingerprint, record or attempt)


def _last(records: list[dict[str, Any]], name: str, fingerprint: str, events: Iterable[str]) -> dict[str, Any] | None:
    found = (r for r in reversed(records) if r.get("stage") == name and r.get("fingerprint") == fingerprint)
    return next((record for record in found if record.get("event") in events), None)


def _attempt(folder: Path) -> dict[str, Any]:
    try:
        return as_dict(read_attempt(folder))
    except ValueError:  # bytes that are no text
        return {}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _sentence(error: Exception, run: Path) -> str:
    return str(error).replace(f"{run}/", "")


def as_dict(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one: artefacts are read without trust in their shape."""
    return value if isinstance(value, dict) else {}


def as_rows(value: Any) -> list[dict[str, Any]]:
    """The mappings in `value` if it is a list, else none."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def whole(row: dict[str, Any], key: str) -> int:
    """A whole number under a key; 0 if it is missing or no number."""
    value = row.get(key)
    return int(value) if is_number(value) and value is not None else 0
