"""What a step's loss and gradient norm say about a run's health, and what is done about it.

    judge     is the step fine, a spike, or not finite: a pure function of the step and the window before it
    respond   what is done about it, on record; the settings say what, and when it has been enough
    rewound   the state of a run that goes back: what it read since then, it will not read again
              (`tokens.order.data_step` says what it reads instead)

All state is in `Progress` and every process sees the same numbers, so all of them decide alike, and a resumed run
decides as an undisturbed one. The measure is that of OLMo-core's skip-step optimizers: deviations above the mean of a
window that the spikes themselves enter, so that a level that has truly changed is no spike for long.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Workspace
from glassbox.recipe.loop import Safety
from glassbox.train.checkpoint import Progress

Verdict = Literal["fine", "spike", "not finite"]
Response = Literal["go on", "warn", "skip", "rewind"]


def judge(recent: Sequence[Sequence[float]], loss: float, norm: float, safety: Safety) -> Verdict:
    """What a step is, measured against (loss, gradient norm) of the steps before it.

    A spike lies `safety.spike` standard deviations above their mean, in loss or in norm; it takes half a window of
    steps, and some deviation, to tell one.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return "not finite"
    if safety.spike is None or len(recent) < max(2, safety.window // 2):
        return "fine"
    before = np.array(recent)
    mean, deviation = before.mean(0), before.std(0, ddof=1)
    beyond = (np.array([loss, norm]) - mean > safety.spike * deviation) & (deviation > 0)
    return "spike" if beyond.any() else "fine"


def remember(progress: Progress, loss: float, norm: float, safety: Safety) -> None:
    """Let a step enter the window that later ones are measured against."""
    if safety.spike is not None and math.isfinite(loss) and math.isfinite(norm):
        progress.recent = [*progress.recent, [loss, norm]][-safety.window :]


def respond(
    verdict: Verdict, progress: Progress, loss: float, norm: float, safety: Safety, workspace: Workspace
) -> Response:
    """What is done about the step after `progress.step`; recorded as an event unless the step is fine.

    Raises GlassboxError where the settings stop the run: at once, or after `safety.limit` skips and rewinds.
    """
    if verdict == "fine":
        return "go on"
    wanted = safety.on_spike if verdict == "spike" else safety.nonfinite
    if wanted in ("skip", "rewind"):
        progress.events = [step for step in progress.events if step > progress.step - safety.window] + [progress.step]
    enough = len(progress.events) > safety.limit
    workspace.event(verdict, step=progress.step + 1, loss=loss, grad_norm=norm, done="stop" if enough else wanted)
    if wanted == "stop":
        raise diverged(progress.step, loss, norm)
    if enough:
        raise GlassboxError(
            f"training stopped at step {progress.step + 1} (loss {loss}, gradient norm {norm}): more than "
            f"{safety.limit} spikes or numbers that are not finite within {safety.window} steps; the checkpoints are "
            "kept; look at the data with `glassbox inspect`, lower the optimizer's lr, or raise loop.safety.limit to "
            "go on"
        )
    return wanted


def diverged(step: int, loss: float, norm: float) -> GlassboxError:
    return GlassboxError(
        f"training diverged at step {step + 1}: loss {loss}, gradient norm {norm}; the checkpoints before it are kept; "
        "lower the optimizer's lr or clip, look at the step's data with `glassbox inspect`, or set "
        "loop.safety.nonfinite to skip or rewind and go on"
    )


def rewound(restored: Progress, now: Progress) -> Progress:
    """The state of a run that goes back from the step after `now.step` to the checkpoint it was `restored` from."""
    return replace(restored, replaced=[*now.replaced, [restored.step, now.step + 1]], events=now.events)
