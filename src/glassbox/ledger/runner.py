"""Carry out a recipe: which stages are due, each in its own folder, sealed when done, every attempt on record."""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from glassbox.errors import GlassboxError, Interrupted, RequestError
from glassbox.ledger import usage
from glassbox.ledger.hashing import RawHashes, manifest_text, seal
from glassbox.ledger.record import append_record
from glassbox.ledger.run import (
    ATTEMPTS,
    RAW_HASHES,
    StageState,
    code_version,
    input_hashes,
    locked,
    machine_facts,
    read_attempt,
    stage_states,
    write_recipe,
)
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import TEMPORARY, write_json
from glassbox.recipe.base import Stage
from glassbox.recipe.files import raw_files
from glassbox.recipe.schema import Recipe

log = logging.getLogger("glassbox")

StageFunction = Callable[[Any, Inputs, Workspace], None]


class Watcher(Protocol):
    """Who looks on: the command line shows bars, a test counts calls."""

    def stage(self, name: str, state: str, seconds: float = 0.0) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...


@dataclass(frozen=True)
class Selection:
    """Which stages to carry out: from `first` to `last` (default all), `fresh` ones again whatever their state."""

    first: str | None = None
    last: str | None = None
    fresh: frozenset[str] = frozenset()

    def of(self, recipe: Recipe) -> list[str]:
        order = recipe.order()
        for name in {self.first, self.last, *self.fresh} - {None}:
            if name not in order:
                raise RequestError(f"'{name}' is no stage of recipe '{recipe.name}' (stages: {', '.join(order)})")
        start = order.index(self.first) if self.first else 0
        end = order.index(self.last) + 1 if self.last else len(order)
        if start >= end:
            raise RequestError(
                f"'{self.first}' comes after '{self.last}' in recipe '{recipe.name}': nothing lies between"
            )
        return order[start:end]


def due_stages(run: Path, recipe: Recipe, selection: Selection = Selection()) -> tuple[list[StageState], set[str]]:
    """The state of every stage, and the names of those that would be carried out now."""
    states = stage_states(run, recipe)
    again = recipe.descendants(set(selection.fresh)) if selection.fresh else set()
    due = {state.name for state in states if state.state != "finished"} | again
    return states, due.intersection(selection.of(recipe))


def execute(
    recipe: Recipe,
    run: Path,
    functions: Mapping[str, StageFunction],
    watcher: Watcher,
    *,
    selection: Selection = Selection(),
    device: str = "cpu",
    stop_requested: Callable[[], bool] = lambda: False,
    patience: float = 0.0,
) -> list[str]:
    """Bring `run` up to date with `recipe`; returns the names of the stages that were carried out.

    Another process that works on the run is waited for as long as `patience` seconds.
    Raises RequestError (wrong request), GlassboxError (a stage failed) or Interrupted. Whatever was finished stays.
    """
    with locked(run, patience):
        states, due = due_stages(run, recipe, selection)
        write_recipe(run, recipe)
        chosen = set(selection.of(recipe))
        for state in states:
            name, stage = state.name, recipe.stages[state.name]
            if name not in due:
                if name in chosen:
                    watcher.stage(name, "unchanged")
                continue
            _require_inputs(run, recipe, name)
            if stop_requested():
                raise Interrupted("stopped on request; run the same command again to go on")
            _carry_out(recipe, run, state, functions[stage.kind], watcher, device, stop_requested)
        return [state.name for state in states if state.name in due]


def _carry_out(
    recipe: Recipe,
    run: Path,
    state: StageState,
    function: StageFunction,
    watcher: Watcher,
    device: str,
    stop_requested: Callable[[], bool],
) -> None:
    name, stage, folder = state.name, recipe.stages[state.name], run / state.name
    earlier = _prepare(run, stage, state)
    workspace = Workspace(
        folder,
        recipe.seed,
        recipe.machine.threads,
        device,
        on_progress=watcher.progress,
        on_event=partial(_incident, run, name),
        stop_requested=stop_requested,
    )
    inputs = Inputs(tuple(Artefact(source, recipe.stages[source].gives, run / source) for source in stage.inputs))
    watcher.stage(name, "resumed" if (folder / "checkpoints").exists() else "started")
    meter = usage.start()
    try:
        function(stage, inputs, workspace)
        _finish(run, recipe, state, _cost(recipe, usage.since(meter, earlier)))
    except BaseException as error:
        event = "interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed"
        _note(run, state, event, _cost(recipe, usage.since(meter, earlier)))
        if isinstance(error, GlassboxError) and not isinstance(error, Interrupted):
            raise type(error)(f"stage '{name}': {error}") from error
        # Not every library says "disk full" with an OSError.
        if isinstance(error, OSError) or "No space left" in str(error):
            where, what = getattr(error, "filename", None) or folder, getattr(error, "strerror", None) or error
            raise GlassboxError(
                f"stage '{name}': {where}: {what}; mend it and run the same command again, finished work is kept"
            ) from error
        raise
    watcher.stage(name, "finished", usage.since(meter, earlier).seconds)


def _incident(run: Path, stage: str, facts: dict[str, Any]) -> None:
    """Record something that happened in a stage and did not end it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append_record(run, {"event": "incident", "stage": stage, "at": at, **facts})


def _require_inputs(run: Path, recipe: Recipe, name: str) -> None:
    """Raise RequestError unless every input is finished under the recipe as it is now."""
    now = {state.name: state.state for state in stage_states(run, recipe)}
    for source in recipe.stages[name].inputs:
        if now[source] != "finished":
            why = "was made with other settings or inputs" if now[source] == "changed" else "is not finished"
            raise RequestError(f"stage '{name}' takes from '{source}', which {why}; run it first")


def _cost(recipe: Recipe, used: usage.Usage) -> dict[str, Any]:
    return {
        "seconds": round(used.seconds, 3),
        "cpu_seconds": round(used.cpu_seconds, 3),
        "peak_memory_bytes": used.peak_memory_bytes,
        "energy_wh": round(used.cpu_seconds * recipe.machine.watts / 3600, 4),
        "cost_usd": round(used.seconds / 3600 * recipe.machine.price, 6),
    }


def _prepare(run: Path, stage: Stage, state: StageState) -> usage.Usage:
    """Make the stage's folder ready; returns what an interrupted attempt that goes on has already used.

    A folder that is sealed or of other settings moves to `.attempts/`. One without checkpoints is emptied: such a stage
    starts anew.
    """
    folder = run / state.name
    if folder.exists() and state.state != "interrupted":
        kept = run / ATTEMPTS / f"{state.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}"
        kept.parent.mkdir(exist_ok=True)
        folder.rename(kept)
    attempt = read_attempt(folder)
    resumed = (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir())
    if folder.exists() and not resumed:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in list(folder.rglob(f"{TEMPORARY}*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    append_record(run, {"event": "started", "stage": state.name, "fingerprint": state.fingerprint})
    if resumed:
        return usage.Usage(*(attempt.get(name, 0) for name in ("seconds", "cpu_seconds", "peak_memory_bytes")))
    write_json(folder / "attempt.json", {"fingerprint": state.fingerprint, "inputs": input_hashes(run, stage)})
    return usage.Usage(0.0, 0.0, 0)


def _finish(run: Path, recipe: Recipe, state: StageState, cost: dict[str, Any]) -> None:
    """Record the stage as finished, then seal it: a kill between the two leaves it unfinished, never unrecorded."""
    stage, folder = recipe.stages[state.name], run / state.name
    for file, sha in RawHashes(run / RAW_HASHES)(raw_files(stage)).items():
        if state.raw.get(file) != sha:
            raise GlassboxError(f"{file}: raw input changed while the stage ran; run the same command again")
    inputs = input_hashes(run, stage)
    write_json(folder / "attempt.json", {"fingerprint": state.fingerprint, "inputs": inputs, **cost})
    about = {
        "stage": state.name,
        "kind": stage.kind,
        "gives": stage.gives,
        "fingerprint": state.fingerprint,
        "settings": stage.model_dump(mode="json", by_alias=True),
        "seed": recipe.seed,
        "inputs": inputs,
        "raw": state.raw,
        "code": code_version(),
    }
    text = manifest_text(folder, about)
    record = {
        "event": "finished",
        "stage": state.name,
        "kind": stage.kind,
        "fingerprint": state.fingerprint,
        "inputs": inputs,
        "manifest": hashlib.sha256(text.encode()).hexdigest(),
        "code": code_version(),
        "machine": machine_facts(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **cost,
    }
    append_record(run, record)
    seal(folder, text)


def _note(run: Path, state: StageState, event: str, cost: dict[str, Any]) -> None:
    """Keep what a broken-off attempt has used; on a full disk the failure itself is the message that matters."""
    try:
        folder = run / state.name
        write_json(folder / "attempt.json", {**read_attempt(folder), **cost})
        append_record(run, {"event": event, "stage": state.name, "fingerprint": state.fingerprint, **cost})
    except OSError as error:
        log.warning("%s: could not record that stage '%s' was %s (%s)", run, state.name, event, error)
