"""What a stage is given: artefacts of earlier stages and a folder to fill; progress, metrics and a stop signal.

A stage is `run(config, inputs, workspace) -> None`. It knows nothing of the runner; a test makes its own `Workspace`.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassbox.errors import Interrupted
from glassbox.ledger.writing import write_lines

log = logging.getLogger("glassbox")


@dataclass(frozen=True)
class Artefact:
    """A finished stage's folder."""

    name: str
    """The stage's name in the recipe."""
    kind: str
    """pages, documents, problems, tokenizer, tokens, model or scores."""
    path: Path


@dataclass(frozen=True)
class Inputs:
    """The artefacts a stage takes, in the order of its `from`."""

    artefacts: tuple[Artefact, ...] = ()

    def all(self, kind: str) -> list[Artefact]:
        return [artefact for artefact in self.artefacts if artefact.kind == kind]

    def one(self, kind: str) -> Path:
        """The folder of the only artefact of this kind (the recipe's checks guarantee there is one)."""
        (artefact,) = self.all(kind)
        return artefact.path

    def maybe(self, kind: str) -> Path | None:
        found = self.all(kind)
        return found[0].path if found else None


@dataclass
class Workspace:
    """A stage's own folder and its line to the runner."""

    folder: Path
    seed: int = 0
    """The recipe's seed; a stage derives all its randomness from it."""
    threads: int = 1
    """CPU threads for this process."""
    device: str = "cpu"
    """Where tensors live: cpu or cuda."""
    rank: int = 0
    """This process's number among those that do the stage together; only process 0 reports and keeps metrics."""
    on_progress: Callable[[float, float, str], None] | None = None
    on_event: Callable[[dict[str, Any]], None] | None = None
    on_metric: Callable[[int, dict[str, Any]], None] | None = None
    """Whom else to tell the metrics."""
    stop_requested: Callable[[], bool] = field(default=lambda: False)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Report how far the stage is, in any unit, with a short note (a rate, a loss)."""
        if self.on_progress and self.rank == 0:
            self.on_progress(done, total, note)

    def metric(self, step: int, **values: Any) -> None:
        """Append a line to the stage's metrics stream, `metrics.jsonl`."""
        if self.rank != 0:
            return
        with self.path("metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        if self.on_metric:
            self.on_metric(step, values)

    def event(self, what: str, **facts: Any) -> None:
        """Record something that should not happen and that the stage goes on after: a line in the log, and one in the
        run's ledger. Numbers that are not finite are kept as words."""
        if self.rank != 0:
            return
        plain = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in facts.items()
        }
        log.warning("%s: %s", what, ", ".join(f"{name} {value}" for name, value in plain.items()))
        if self.on_event:
            self.on_event({"what": what, **plain})

    def rewind_metrics(self, step: int) -> None:
        """Drop metrics after `step`: called on resume, so that a step stands once in the stream."""
        if self.rank != 0:
            return
        write_lines(self.path("metrics.jsonl"), [row for row in read_metrics(self.folder) if row["step"] <= step])

    def stop_if_asked(self) -> None:
        """Raise `Interrupted` if the user asked to stop. Call it where nothing is lost: after a checkpoint."""
        if self.stop_requested():
            raise Interrupted("stopped on request; run the same command again to go on")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's metrics stream; a torn last line (a kill while writing) is left out."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
