"""Where metrics go besides the stage's own stream. A tracker that fails is dropped; training goes on."""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassbox.ledger.workspace import Workspace

PATIENCE = 60.0
"""Seconds that a tracker is given to come up, and to finish."""


@dataclass(frozen=True)
class Tracker:
    """An open service."""

    write: Callable[[Mapping[str, float], int], object]
    """(name -> value, step)."""
    close: Callable[[], object]


@contextmanager
def tracking(names: Sequence[str], workspace: Workspace, step: int) -> Iterator[None]:
    """Hand every metric of a stage, which goes on from `step`, to the named trackers too."""
    trackers = Trackers(names if workspace.rank == 0 else (), workspace, step)
    workspace.on_metric = trackers.write
    try:
        yield
    finally:
        workspace.on_metric = None
        trackers.close()


class Trackers:
    """The trackers of a stage that have not failed yet."""

    def __init__(self, names: Sequence[str], workspace: Workspace, step: int):
        """Open them, in a run that goes on from `step`."""
        self.workspace = workspace
        self.open: dict[str, Tracker] = {}
        for name in names:
            try:
                self.open[name] = OPENERS[name](workspace.folder, step)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not end the training
                self._dropped(name, error)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Hand on the numbers among `values`."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        for name in list(self.open):
            try:
                self.open[name].write(numbers, step)
            except Exception as error:  # noqa: BLE001
                del self.open[name]
                self._dropped(name, error)

    def close(self) -> None:
        """Finish them, each in a thread that is waited for no longer than `PATIENCE`: a service that is out of reach
        may let a closing wait without end."""
        for name, tracker in self.open.items():
            ended: list[Exception | None] = []
            closing = threading.Thread(target=_attempt, args=(tracker.close, ended), daemon=True)
            closing.start()
            closing.join(PATIENCE)
            error = ended[0] if ended else TimeoutError(f"not finished within {PATIENCE:.0f} s")
            if error is not None:
                self._dropped(name, error)
        self.open = {}

    def _dropped(self, name: str, error: Exception) -> None:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        self.workspace.event("tracker failed", tracker=name, error=message)


def _attempt(action: Callable[[], object], ended: list[Exception | None]) -> None:
    try:
        action()
        ended.append(None)
    except Exception as error:  # noqa: BLE001
        ended.append(error)


def _tensorboard(folder: Path, step: int) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(values: Mapping[str, float], at: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, at)

    return Tracker(write, writer.close)


def _wandb(folder: Path, step: int) -> Tracker:
    import wandb

    identity = folder / "wandb-id.txt"
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
    run = wandb.init(
        project="glassbox",
        id=identity.read_text(encoding="utf-8").strip(),
        name=f"{folder.parent.name}/{folder.name}",
        resume="allow",
        dir=str(folder),
        settings=wandb.Settings(init_timeout=PATIENCE, login_timeout=PATIENCE, silent=True, console="off"),
    )
    run.define_metric("*", step_metric="step")  # its own count never goes back, a training that rewinds does
    return Tracker(lambda values, at: run.log({**values, "step": at}), run.finish)


OPENERS: dict[str, Callable[[Path, int], Tracker]] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""Name in `loop.trackers` -> how it is opened for a stage's folder and the step to go on from."""
