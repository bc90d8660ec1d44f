"""Checkpoints that no kill can tear, written while training goes on, and read back under any plan.

    checkpoints/step-000000100/rank-00000.safetensors   pieces of `model.<name>` and `optimizer.<moment>.<name>`
                               tensors.json             where each piece of each tensor lies
                               config.json, ...         what a model folder has beside weights: the folder is a model
                               state.json               the `Progress`, and the hash of every file

A folder appears whole or not at all. On resume the newest one counts; it is held against its hashes first.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from glassbox.errors import GlassboxError, IntegrityError
from glassbox.ledger.writing import TEMPORARY, atomic_open, sync_folder
from glassbox.model.pieces import PIECES, Pieces
from glassbox.recipe.loop import Loop
from glassbox.train import storage
from glassbox.train.parallel.place import Placed
from glassbox.train.storage import MODEL, Part, Plan, together

log = logging.getLogger("glassbox")

KEPT = 2
"""Checkpoints that stay beside those that are kept for good: the newest, and the one before it in case of damage."""
STATE = "state.json"

Describe = Callable[[Path, int], None]
"""Writes a model's files beside its weights, as it is after so many steps, into a folder: configuration, tokenizer."""


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
    """[first, end) of each stretch of steps that read other data than it first did (`tokens.order.data_step`)."""
    expert_load: list[list[float]] = field(default_factory=list)
    """Share of the last logged step's tokens that each expert took, (layers, experts); empty for a dense network."""


class Saver:
    """Writes the checkpoints of a run: `save` takes a copy and returns, a thread writes it.

    As a context it ends when what is being written is on disk, whatever ends it. Every process of the run has one, and
    they all call `save` at the same steps.
    """

    def __init__(
        self, folder: Path, placed: Placed, optimizer: torch.optim.Optimizer, describe: Describe | None = None
    ) -> None:
        self.folder, self.placed, self.optimizer, self.describe = folder, placed, optimizer, describe
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._layout: list[tuple[str, Any]] = []
        self._plan = Plan(frozenset(), {})
        self._copies: dict[str, Tensor] = {}

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except GlassboxError as failure:
            if error is None:
                raise
            if self.placed.ranks.rank == 0:
                log.error("%s", failure)
        finally:
            self._thread.shutdown()

    def save(self, progress: Progress, keep: bool = False) -> None:
        """Begin to write the checkpoint of this moment; one that exists stays as it is. `keep`: for good.

        Waits for the one before. Raises GlassboxError if that could not be written, or if there is no room for this.
        """
        self.wait()
        target = self.folder / f"step-{progress.step:09d}"
        if target.exists():
            return
        parts = storage.parts_of(self.placed, self.optimizer)
        plan = self._planned(parts)
        self._require_room(target, plan.bytes)
        copies = self._copied(parts, plan)
        state = {"progress": dataclasses.asdict(progress), "kept": keep}
        self._writing = self._thread.submit(self._write, target, copies, plan, state)

    def failed(self) -> bool:
        """Whether the checkpoint that was being written could not be, as far as this process knows; does not wait."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def wait(self) -> None:
        """Until the checkpoint is on disk. Raises GlassboxError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _planned(self, parts: list[Part]) -> Plan:
        """The plan, made anew where some process holds other tensors than before."""
        layout = [(part.name, part.extent) for part in parts]
        if self.placed.ranks.most([float(layout != self._layout)])[0]:
            self._layout, self._plan = layout, storage.plan(parts, self.placed.ranks.aside)
        return self._plan

    def _require_room(self, target: Path, needed: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = -self.placed.ranks.most([-shutil.disk_usage(target.parent).free])[0]
        if free < needed:
            raise GlassboxError(
                f"no room for the checkpoint {target}: it needs {needed / 1e9:,.3f} GB and the disk has "
                f"{free / 1e9:,.3f} GB left; the one before it is whole: make room and run the same command again"
            )

    def _copied(self, parts: list[Part], plan: Plan) -> dict[str, Tensor]:
        """What this process writes, as it is now, on the CPU; the same memory each time."""
        pieces = {name: piece for name, piece in storage.pieces_of(parts).items() if name in plan.mine}
        copies = {}
        for name, piece in pieces.items():
            if name not in self._copies:
                self._copies[name] = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=piece.is_cuda)
            copies[name] = self._copies[name].copy_(piece, non_blocking=True)
        if self.placed.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return copies

    def _write(self, target: Path, copies: dict[str, Tensor], plan: Plan, state: dict[str, Any]) -> None:
        """Write a checkpoint: every process its pieces, then the first one the rest."""
        ranks, temporary = self.placed.ranks, target.with_name(TEMPORARY + target.name)
        try:
            written = together(lambda: storage.write_pieces(temporary, ranks.rank, copies), ranks.aside)
            hashes = {name: digest for one in written for name, digest in one.items()}
            together(lambda: self._complete(target, temporary, plan, state, hashes), ranks.aside)
        except (OSError, RuntimeError) as error:  # RuntimeError: another process is gone
            raise GlassboxError(
                f"could not write the checkpoint {target}: {error}; the one before it is whole"
            ) from error
        finally:
            if ranks.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)

    def _complete(
        self, target: Path, temporary: Path, plan: Plan, state: dict[str, Any], hashes: dict[str, str]
    ) -> None:
        """On the first process: add index, description and state, then let the folder appear under its name."""
        if self.placed.ranks.rank:
            return
        (temporary / PIECES).write_text(json.dumps(plan.index), encoding="utf-8")
        if self.describe is not None:
            self.describe(temporary, state["progress"]["step"])
        others = [path for path in sorted(temporary.iterdir()) if path.name not in hashes]
        hashes = hashes | {path.name: storage.sha256(path) for path in others}
        (temporary / STATE).write_text(_sealed(state | {"sha256": hashes}), encoding="utf-8")
        for path in (*others, temporary / STATE):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
        prune(target.parent, KEPT)


def resume(folder: Path, placed: Placed, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the newest checkpoint into weights and moments, in place; a fresh `Progress` if there is none.

    Every process of the run calls this. Raises IntegrityError, on all of them and before anything is read, naming the
    file that is not as it was written.
    """
    ranks = placed.ranks
    path = together(lambda: _newest(folder) if ranks.rank == 0 else None, ranks.aside)[0]
    if path is None:
        return Progress()
    state = together(lambda: _verified(path, ranks.rank, ranks.world), ranks.aside)[0]
    together(lambda: storage.read_parts(path, placed, optimizer), ranks.aside)
    if ranks.rank == 0:
        log.info("resuming from %s", path)
    return Progress(**state["progress"])


def amend(folder: Path, placed: Placed, progress: Progress) -> None:
    """Change the newest checkpoint's `Progress`, whole or not at all; every process of the run calls this."""

    def write() -> None:
        if placed.ranks.rank == 0:
            path = newest(folder)
            state = {name: value for name, value in _read_state(path).items() if name != "seal"}
            with atomic_open(path / STATE) as file:
                file.write(_sealed(state | {"progress": dataclasses.asdict(progress)}))

    together(write, placed.ranks.aside)


def is_kept(loop: Loop, tokens_before: int, now: Progress) -> bool:
    """Whether the checkpoint after a step that began with `tokens_before` stays for good."""
    by_steps = loop.keep_every > 0 and now.step % loop.keep_every == 0
    by_tokens = loop.keep_tokens > 0 and now.tokens // loop.keep_tokens > tokens_before // loop.keep_tokens
    return by_steps or by_tokens


def newest(folder: Path) -> Path:
    """The newest checkpoint. Raises GlassboxError if there is none."""
    if not (paths := _all(folder)):
        raise GlassboxError(f"{folder} holds no checkpoint")
    return paths[-1]


def whole_tensors(path: Path) -> Pieces:
    """The weights and score biases of a checkpoint, by name and in the order of names, whoever wrote them."""
    return Pieces(path, MODEL)


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and those that are kept for good."""
    paths = _all(folder)
    for path in paths[: max(0, len(paths) - keep)]:
        if not _is_marked(path):
            passing = path.with_name(TEMPORARY + path.name)
            path.rename(passing)  # a kill half-way must not leave half a checkpoint
            shutil.rmtree(passing)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint, if there is one; what a kill left half written is removed."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    return max(_all(folder), default=None)


def _is_marked(path: Path) -> bool:
    """Whether a checkpoint is kept for good; one whose state is damaged is not for us to throw away."""
    try:
        return bool(json.loads((path / STATE).read_text(encoding="utf-8")).get("kept"))
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def _verified(path: Path, rank: int, world: int) -> dict[str, Any]:
    """A checkpoint's state, once a process's share of the files has been held against its hashes."""
    state = _read_state(path)
    for name, expected in sorted(state["sha256"].items())[rank::world]:
        if not (path / name).is_file():
            raise _damaged(path / name, "is missing")
        if storage.sha256(path / name) != expected:
            raise _damaged(path / name, "does not match its hash")
    return state


def _read_state(path: Path) -> dict[str, Any]:
    try:
        text = (path / STATE).read_text(encoding="utf-8")
        state = json.loads(text)
        if text == _sealed({name: value for name, value in state.items() if name != "seal"}):
            return state
    except FileNotFoundError:
        raise _damaged(path / STATE, "is missing") from None
    except (ValueError, AttributeError):
        pass
    raise _damaged(path / STATE, "does not match its own hash")


def _sealed(state: dict[str, Any]) -> str:
    """The text of `state.json`, which ends with the hash of the rest."""
    seal = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    return json.dumps(state | {"seal": seal}, indent=1) + "\n"


def _damaged(file: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{file} {what}: the checkpoint is damaged; delete {file.parent} to go on from the one before it"
    )
