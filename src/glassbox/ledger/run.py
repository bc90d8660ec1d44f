"""A run's folder: which stages are finished, changed or interrupted; verification of the whole chain; pruning."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml

from glassbox import __version__
from glassbox.errors import IntegrityError, RequestError
from glassbox.ledger.hashing import MANIFEST, RawHashes, check_folder, digest, hash_file, manifest_hash, read_manifest
from glassbox.ledger.record import append_record, read_records
from glassbox.ledger.writing import TEMPORARY, atomic_open
from glassbox.recipe.base import Stage, identity
from glassbox.recipe.files import raw_files, surroundings
from glassbox.recipe.loading import build, parse
from glassbox.recipe.schema import Recipe

RAW_HASHES = ".raw-hashes.json"
LOCK = ".lock"
ATTEMPTS = ".attempts"
"""Folder of earlier attempts whose settings changed; `prune` empties it."""


@dataclass(frozen=True)
class StageState:
    """Where a stage stands: finished, changed (settings or inputs differ from the recipe), interrupted or waiting."""

    name: str
    state: str
    fingerprint: str
    raw: dict[str, str]
    """Raw input file -> its hash."""
    drift: bool = False
    """Finished by another version of the code than this one."""


def fingerprint(stage: Stage, seed: int, inputs: dict[str, str], raw: dict[str, str]) -> str:
    """Hash of all that decides a result: settings, seed, raw input files, the inputs' names and fingerprints."""
    return digest(
        {
            "settings": identity(stage),
            "seed": seed,
            "inputs": list(inputs.items()),
            "raw": raw,
            "surroundings": surroundings(stage),
        }
    )


@cache
def code_version() -> str:
    """Package version and a hash of its source files: equal exactly when the code is."""
    root = Path(__file__).resolve().parents[1]
    hashes = {file.relative_to(root).as_posix(): hash_file(file) for file in sorted(root.rglob("*.py"))}
    return f"{__version__}+{digest(hashes)[:12]}"


def machine_facts() -> dict[str, Any]:
    """What the run's records say of the machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def stage_states(run: Path, recipe: Recipe) -> list[StageState]:
    """The state of every stage of the recipe in its run folder, in order.

    A stage counts as finished or interrupted only if its inputs are finished and still the ones it read.
    """
    hashes = RawHashes(run / RAW_HASHES)
    states: dict[str, StageState] = {}
    for name in recipe.order():
        stage, folder = recipe.stages[name], run / name
        raw = hashes(raw_files(stage))
        inputs = {source: states[source].fingerprint for source in stage.inputs}
        wanted = fingerprint(stage, recipe.seed, inputs, raw)
        manifest = read_manifest(folder)
        made = manifest if manifest is not None else read_attempt(folder)
        state, drift = "waiting", False
        if made:
            same = made.get("fingerprint") == wanted and made.get("inputs") == input_hashes(run, stage)
            sound = all(states[source].state == "finished" for source in stage.inputs)
            state = ("finished" if manifest else "interrupted") if same and sound else "changed"
            drift = state == "finished" and made["code"] != code_version()
        states[name] = StageState(name, state, wanted, raw, drift)
    return list(states.values())


def input_hashes(run: Path, stage: Stage) -> dict[str, str | None]:
    """Input's name -> hash of its manifest as it is now; None for one that is not finished."""
    return {source: manifest_hash(run / source) for source in stage.inputs}


def read_attempt(folder: Path) -> dict[str, Any]:
    """`attempt.json` of a stage folder: fingerprint and inputs it was started with, what it used; empty if absent."""
    try:
        attempt: dict[str, Any] = json.loads((folder / "attempt.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return attempt


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Keep the resolved recipe as the run's `recipe.yaml`, and its hash in the ledger when it changed."""
    text = yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    path = run / "recipe.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != text or recorded_recipe(run) != content:
        with atomic_open(path) as file:
            file.write(text)
        append_record(run, {"event": "recipe", "content": content})


def recorded_recipe(run: Path) -> str | None:
    return next((r["content"] for r in reversed(read_records(run)) if r["event"] == "recipe"), None)


def read_recipe(run: Path) -> Recipe:
    """The recipe a run was last started with."""
    path = run / "recipe.yaml"
    if not path.exists():
        raise RequestError(f"{run}: no run here (no recipe.yaml); `glassbox run RECIPE` makes one")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path}: damaged, not UTF-8 text (byte {error.start})") from None
    data, lines = parse(text, str(path))
    return build(data, lines, str(path))


def verify(run: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Re-hash the whole chain. Yields (what, number of files, sentences about what differs), from the raw input on.

    Checked: the ledger's own chain of hashes, the recipe, each finished stage's raw input files, its manifest against
    the ledger, its files against the manifest, and its inputs' fingerprints against theirs.
    """
    records = read_records(run)
    if recorded_recipe(run) != hash_file(run / "recipe.yaml"):
        yield "recipe and ledger", 2, [f"{run / 'recipe.yaml'}: was edited since the run was last started"]
        return
    yield "recipe and ledger", 2, []
    recipe = read_recipe(run)
    sealed = {record["manifest"] for record in records if record["event"] == "finished"}
    last = {record["stage"]: record["event"] for record in records if "stage" in record}
    for name in recipe.order():
        folder = run / name
        if manifest_hash(folder) is None:
            if last.get(name) == "finished":
                yield name, 1, [f"{folder / MANIFEST}: missing, though the stage was finished; run the recipe again"]
            continue
        if manifest_hash(folder) not in sealed:
            yield name, 1, [f"{folder / MANIFEST}: does not match the ledger"]
            continue
        manifest = read_manifest(folder)
        assert manifest is not None
        wrong = [] if manifest["inputs"] == input_hashes(run, recipe.stages[name]) else [
            f"{folder}: was made from inputs that have changed since; run the recipe again"
        ]  # fmt: skip
        for file, sha in manifest["raw"].items():
            if not Path(file).exists():
                wrong.append(f"{file}: raw input is gone")
            elif hash_file(Path(file)) != sha:
                wrong.append(f"{file}: raw input differs from what was read")
        wrong += check_folder(folder, manifest)
        yield name, len(manifest["files"]) + len(manifest["raw"]), wrong


def prune(run: Path) -> int:
    """Delete earlier attempts and leftovers of killed writers; returns the bytes freed."""
    freed = 0
    for path in [run / ATTEMPTS, *run.rglob(f"{TEMPORARY}*")]:
        if path.is_dir():
            freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        elif path.exists():
            freed += path.stat().st_size
            path.unlink()
    return freed


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(run: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run's folder for this process. Raises RequestError if another works on it, `patience` seconds on too."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("a") as file:
        until = time.monotonic() + patience
        while not _taken(file):
            if time.monotonic() >= until:
                raise RequestError(f"{run}: another process is working on this run; wait for it or stop it")
            time.sleep(0.2)
        yield


def model_folder(spec: str, runs: Path) -> Path:
    """The model folder that `spec` names: a run (its last model), `run/stage`, a stage's folder or a model folder."""
    given = Path(spec)
    for base in (runs / spec, given):
        if (base / "config.json").exists():
            return base
        if (base / "model" / "config.json").exists():
            return base / "model"
        if (base / "recipe.yaml").exists():
            recipe = read_recipe(base)
            models = [name for name in recipe.order() if recipe.stages[name].gives == "model"]
            finished = [name for name in models if read_manifest(base / name) is not None]
            if not finished:
                raise RequestError(f"{base}: no model in this run is finished yet")
            return base / finished[-1] / "model"
    raise RequestError(f"'{spec}' is no run under {runs}, no run/stage and no model folder")


def run_folder(spec: str, runs: Path) -> Path:
    """The folder of the run that `spec` names: a name under `runs`, or a path."""
    for folder in (runs / spec, Path(spec)):
        if (folder / "recipe.yaml").exists():
            return folder
    known = sorted(path.parent.name for path in runs.glob("*/recipe.yaml")) if runs.exists() else []
    raise RequestError(f"'{spec}' is no run under {runs} (runs: {', '.join(known) or 'none'})")


def is_locked(run: Path) -> bool:
    """Whether a process is working on the run now."""
    try:
        with (run / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def finished_stage(run: Path, name: str) -> dict[str, Any]:
    """The manifest of a finished stage, or RequestError."""
    manifest = read_manifest(run / name)
    if manifest is None:
        raise RequestError(f"{run / name}: this stage is not finished; `glassbox status {run.name}` shows what is")
    return manifest
