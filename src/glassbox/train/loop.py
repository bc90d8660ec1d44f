"""The training loop: one, for every objective.

    for each step:  rows = batch_at(step)                   the step's data, a pure function of the step
                    for each micro-batch: forward, objective, backward
                    clip, and look at loss and norm         go on, skip the update, or go back (`safety.py`)
                    learning rate, optimizer, score biases
                    metrics, evaluation, checkpoint         when their turn comes
                    stop if asked                           after a checkpoint

All state is in the weights, the optimizer's moments and `Progress`; there is no random state, as whatever is random
derives from (seed, step). So a resumed run takes the same steps, bit for bit.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassbox.errors import Interrupted
from glassbox.ledger.workspace import Workspace
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.rates import factor
from glassbox.tokens.order import Share, data_step
from glassbox.train import checkpoint
from glassbox.train.checkpoint import Describe, Progress, Saver, is_kept
from glassbox.train.compile import compile_blocks
from glassbox.train.meter import Meter
from glassbox.train.optimizer import build_optimizer, set_rates
from glassbox.train.parallel.place import Placed, clip_gradients, fill, place, sum_over_columns
from glassbox.train.precision import next_scale, set_precision
from glassbox.train.prefetch import ahead
from glassbox.train.recompute import recompute_blocks
from glassbox.train.rows import Rows, labelled_tokens, to_rows
from glassbox.train.safety import Response, judge, remember, respond, rewound
from glassbox.train.step import ROUTERS, Beside, Objective, StepResult, accumulate, move_biases
from glassbox.train.trackers import tracking
from glassbox.train.watch import STACKS, Pace, report_hangs, watchdog

log = logging.getLogger("glassbox")


@dataclass(frozen=True)
class Course:
    """How a step trains."""

    lr: float
    """Learning rate of the step."""
    optimizer: Optimizer
    """The other settings of its update."""
    beside: Beside = ROUTERS
    """What it trains beside the objective."""
    network: Network | None = None
    """The network as it computes in this step, where that changes on the way (its rotary base)."""


def steady(optimizer: Optimizer, schedule: Schedule, steps: int, beside: Beside = ROUTERS) -> Callable[[int], Course]:
    """The course of a stage with one optimizer and one schedule over all its steps."""
    return lambda step: Course(optimizer.lr * factor(schedule, step, 1, steps), optimizer, beside)


def fit(
    model: Transformer,
    batch_at: Callable[[int, Share], Any],
    objective: Objective,
    *,
    steps: int,
    course: Callable[[int], Course],
    loop: Loop,
    workspace: Workspace,
    denominator: Callable[[Rows], float] = labelled_tokens,
    evaluate: Callable[[Placed, int], dict[str, float]] | None = None,
    first_values: Callable[[str], Tensor] | None = None,
    describe: Describe | None = None,
    from_model: bool = False,
) -> Progress:
    """Train `model` in place up to `steps` optimizer steps, going on from the workspace's newest checkpoint.

    `batch_at(step, share)` gives a process's share of a step's rows (see `rows.py`); with `from_model` it uses the
    model as it stands, and is called when its turn comes. `course(step)` says how the step trains. `denominator(rows)`
    is what the step's summed loss is divided by, counted over the whole step. `evaluate(placed, step)` returns named
    numbers for the metrics stream, after so many steps. `first_values(name)` gives the whole tensors of a model on the
    meta device, where there is no checkpoint. `describe` makes each checkpoint a model folder.

    Under a plan (`loop.parallel`) every process of the run calls this with the same arguments, and the model is cut
    down to its part. Raises GlassboxError when loss or gradient stop being finite and `loop.safety` does not go on,
    Interrupted when a stop was requested.
    """
    torch.set_num_threads(workspace.threads)
    placed = _placed(model, loop, workspace, first_values)
    ranks, optimizer = placed.ranks, build_optimizer(placed, course(0).optimizer)
    report_hangs(workspace)
    checkpoints = workspace.path("checkpoints")
    progress = checkpoint.resume(checkpoints, placed, optimizer)
    workspace.rewind_metrics(progress.step)
    meter, pace = Meter(placed, progress), Pace(ranks, loop.safety.slow)

    def rows_at(step: int) -> Rows:
        return to_rows(batch_at(data_step(step, steps, progress.replaced), ranks.share))

    stacks = workspace.path(STACKS.format(rank=ranks.rank))
    with (
        watchdog(stacks, loop.safety.watchdog if ranks.world > 1 else 0.0) as alive,
        Saver(checkpoints, placed, optimizer, describe) as saver,
        tracking(loop.trackers, workspace, progress.step),
        ahead(rows_at, steps, "cpu" if from_model else workspace.device) as rows_ahead,
    ):
        if progress.step == 0 and "rewind" in (loop.safety.nonfinite, loop.safety.on_spike):
            saver.save(progress)
        while progress.step < steps:
            alive()
            started, tokens = time.perf_counter(), progress.tokens
            rows, now = rows_ahead(progress.step), course(progress.step)
            waited = time.perf_counter() - started
            update = _update(placed, optimizer, progress, rows, now, objective, denominator(rows), loop, workspace)
            if update.response == "rewind":
                progress = _go_back(saver, progress, workspace)
                meter = Meter(placed, progress)
                continue
            remember(progress, update.result.loss, update.grad_norm, loop.safety)
            progress.step += 1
            meter.count(rows, update.result, time.perf_counter() - started, now.beside.multi_token > 0)
            pace.count(waited, time.perf_counter() - started)

            done = progress.step == steps
            workspace.progress(progress.step, steps, f"loss {update.result.loss:.3f} · {meter.rate():,.0f} tokens/s")
            if progress.step % loop.log_every == 0 or done:
                workspace.metric(progress.step, **_metrics(update, now, placed, progress), **meter.read(update.result))
                pace.report(workspace, progress.step)
            if evaluate and (done or (loop.evaluate_every and progress.step % loop.evaluate_every == 0)):
                alive()
                _evaluate(evaluate, placed, progress, workspace)
            alive()
            _save(saver, progress, is_kept(loop, tokens, progress), loop.checkpoint_every, workspace, done)
    return progress


def _placed(
    model: Transformer, loop: Loop, workspace: Workspace, first_values: Callable[[str], Tensor] | None
) -> Placed:
    """The model as the loop's settings want it, on its devices."""
    set_precision(model, loop, workspace.device)
    placed = place(model, loop.parallel, workspace.device)
    for part in placed.parts:
        recompute_blocks(part, loop.recompute)
        if loop.compile:
            compile_blocks(part)
    if first_values is not None:
        fill(placed, first_values)
    return placed


@dataclass(frozen=True)
class Update:
    """What came of a step."""

    result: StepResult
    grad_norm: float
    """Before clipping."""
    response: Response
    """Whether the weights were changed, or why not."""


def _update(
    placed: Placed,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    rows: Rows,
    now: Course,
    objective: Objective,
    denominator: float,
    loop: Loop,
    workspace: Workspace,
) -> Update:
    """Gradient, clipping, and the optimizer's step where nothing speaks against it."""
    if now.network is not None:
        for part in placed.parts:
            part.network = now.network
    scale = progress.loss_scale if _scaling(placed) else 1.0
    result = accumulate(placed, rows, objective, denominator, loop.micro_rows, now.beside, scale)
    sum_over_columns(placed)
    grad_norm = clip_gradients(placed, now.optimizer.clip)
    response = _response(progress, result.loss, grad_norm, loop, _scaling(placed), workspace)
    if response in ("go on", "warn"):
        set_rates(optimizer, now.lr, now.optimizer)
        optimizer.step()
        move_biases(placed, result, now.beside.score_bias_rate)
    optimizer.zero_grad(set_to_none=True)
    return Update(result, grad_norm, response)


def _scaling(placed: Placed) -> bool:
    """Whether the loss is scaled on its way back."""
    return placed.model.compute_dtype == torch.float16


def _metrics(update: Update, now: Course, placed: Placed, progress: Progress) -> dict[str, float]:
    metrics = {"loss": update.result.loss, "lr": now.lr, "grad_norm": update.grad_norm, **update.result.metrics}
    if _scaling(placed):
        metrics |= {"loss_scale": progress.loss_scale, "skipped_steps": progress.skipped}
    return metrics


def _save(saver: Saver, progress: Progress, keep: bool, every: int, workspace: Workspace, done: bool) -> None:
    """Write a checkpoint where its turn has come, it is to be kept, or the run ends here: done, or on a request that
    all processes hear of at the same step. Raises Interrupted then, and GlassboxError where the one before failed."""
    asked, failed = saver.placed.ranks.most([float(workspace.stop_requested()), float(saver.failed())])
    if failed:
        saver.wait()
    stopping = asked > 0 and not done
    if progress.step % every == 0 or keep or done or stopping:
        saver.save(progress, keep)
    if stopping:
        raise Interrupted("stopped on request; run the same command again to go on")


def _evaluate(
    evaluate: Callable[[Placed, int], dict[str, float]], placed: Placed, progress: Progress, workspace: Workspace
) -> None:
    with torch.no_grad():
        progress.evaluation = evaluate(placed, progress.step)
    placed.settle()
    workspace.metric(progress.step, **progress.evaluation)


def _response(
    progress: Progress, loss: float, norm: float, loop: Loop, scaling: bool, workspace: Workspace
) -> Response:
    """What is done about a step: fp16's overflow costs the update and halves the scale, the rest `safety.py` says."""
    if scaling:
        finite = math.isfinite(loss) and math.isfinite(norm)
        progress.loss_scale, progress.steps_at_scale = next_scale(progress.loss_scale, progress.steps_at_scale, finite)
        if not finite and progress.loss_scale >= 1.0:
            progress.skipped += 1
            now = progress.loss_scale
            log.warning("step %d: overflow in fp16, skipped; the loss scale is now %g", progress.step + 1, now)
            return "skip"
    return respond(judge(progress.recent, loss, norm, loop.safety), progress, loss, norm, loop.safety, workspace)


def _go_back(saver: Saver, progress: Progress, workspace: Workspace) -> Progress:
    """Load the newest checkpoint, and write into it that what was read since then is replaced: a kill from here on
    cannot make the run read it again."""
    saver.wait()
    found = rewound(checkpoint.resume(saver.folder, saver.placed, saver.optimizer), progress)
    checkpoint.amend(saver.folder, saver.placed, found)
    workspace.rewind_metrics(found.step)
    return found
