"""Checkpoints a kill cannot tear: safetensors and one JSON file, in a folder that appears whole or not at all.

    checkpoints/step-000000100/model.safetensors      weights by parameter name
                               optimizer.safetensors  moments as `<moment>.<parameter name>`
                               state.json             the `Progress`, and the hash of both files

The newest whole one wins on resume; a damaged one is skipped with a line in the log, and removed.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassbox.errors import GlassboxError
from glassbox.ledger.writing import TEMPORARY, atomic_folder
from glassbox.model.folder import load_weights, save_weights
from glassbox.model.transformer import Transformer

log = logging.getLogger("glassbox")

KEPT = 2
"""Checkpoints kept while training: the newest, and the one before it in case the newest is damaged."""


@dataclass
class Progress:
    """How far a training run is; all its state beside the weights and the optimizer's moments."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Tokens read, without padding."""
    labels: int = 0
    """Tokens with a target."""
    seconds: float = 0.0
    """Time spent in steps, over all attempts; checkpoints and evaluations are not counted."""
    flops: float = 0.0
    """Floating-point operations of the model's products, forward and backward."""
    evaluation: dict[str, float] = field(default_factory=dict)
    """The last in-loop evaluation."""
    loss_scale: float = 65536.0
    """What the loss is multiplied by in fp16."""
    steps_at_scale: int = 0
    """Steps since the loss scale changed."""
    skipped: int = 0
    """Steps that changed nothing, for an overflow in fp16."""
    recent: list[list[float]] = field(default_factory=list)
    """Loss and gradient norm of the last steps, oldest first: what a spike is measured against (`safety.py`)."""
    events: list[int] = field(default_factory=list)
    """Steps of late that were skipped or gone back from."""
    replaced: list[list[int]] = field(default_factory=list)
    """[first, end) of each stretch of steps that read other data than it first did (`safety.data_step`)."""
    expert_load: list[list[float]] = field(default_factory=list)
    """Share of the last logged step's tokens that each expert took, (layers, experts); empty for a dense network."""


def save(folder: Path, model: Transformer, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write `folder`/step-..., then remove all but the newest `KEPT`. Raises GlassboxError when the disk does."""
    target = folder / f"step-{progress.step:09d}"
    if target.exists():
        return
    try:
        with atomic_folder(target) as temporary:
            save_weights(temporary, model)
            save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
            hashes = {path.name: _hash(path) for path in sorted(temporary.iterdir())}
            state = {"progress": dataclasses.asdict(progress), "sha256": hashes}
            (temporary / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise GlassboxError(f"could not write the checkpoint {target}: {error}; the one before it is whole") from error
    prune(folder, KEPT)


def resume(folder: Path, model: Transformer, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the newest whole checkpoint into model and optimizer, in place; a fresh `Progress` if there is none."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    for path in reversed(_all(folder)):
        try:
            state = _read_state(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is damaged (%s); going back to the one before it", path, error)
            shutil.rmtree(path)
            continue
        load_weights(path, model)
        _load_optimizer(path / "optimizer.safetensors", model, optimizer)
        log.info("resuming from %s", path)
        return state
    return Progress()


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    paths = _all(folder)
    for path in paths[: max(0, len(paths) - keep)]:
        shutil.rmtree(path)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_state(path: Path) -> Progress:
    """A checkpoint's progress; raises ValueError if a file is not what was written."""
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    for name, expected in state["sha256"].items():
        if _hash(path / name) != expected:
            raise ValueError(f"{name} does not match its hash")
    return Progress(**state["progress"])


def _optimizer_tensors(model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{moment}.{name}": value.cpu().contiguous()
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(path: Path, model: Transformer, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    for key, value in load_file(path).items():
        moment, name = key.split(".", 1)
        optimizer.state[parameters[name]][moment] = value.to(parameters[name].device)
