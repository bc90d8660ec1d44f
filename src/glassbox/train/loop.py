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
from glassbox.model.transformer import Output, Transformer
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.rates import factor
from glassbox.recipe.size import train_flops
from glassbox.tokens.order import Share, data_step
from glassbox.train import checkpoint
from glassbox.train.checkpoint import Describe, Progress, Saver, is_kept
from glassbox.train.losses import multi_token
from glassbox.train.optimizer import build_optimizer, set_rates
from glassbox.train.parallel.place import Placed, clip_gradients, fill, hold_back, place, sum_over_columns
from glassbox.train.parallel.work import Score
from glassbox.train.precision import next_scale, set_precision
from glassbox.train.recompute import all_blocks, recompute_blocks
from glassbox.train.rows import Rows, has_target, labelled_tokens, real_tokens, to_rows
from glassbox.train.safety import Response, judge, remember, respond, rewound
from glassbox.train.throughput import peak_flops
from glassbox.train.trackers import tracking
from glassbox.train.watch import STACKS, Pace, report_hangs, watchdog

log = logging.getLogger("glassbox")

Objective = Callable[[Output, Tensor, Rows], tuple[Tensor, dict[str, Tensor]]]
"""(network output, output matrix, micro-batch) -> (loss, metrics), all *sums* over what `denominator` counts."""


@dataclass(frozen=True)
class Beside:
    """What a step trains beside its objective."""

    router_losses: bool = True
    """Whether a mixture of experts adds its router losses; they are measured all the same."""
    multi_token: float = 0.0
    """Weight of the loss of the blocks that predict further ahead; 0: they are not run and stay as they are."""
    score_bias_rate: float = 0.0
    """How far the step moves the routers' score biases against the experts' loads."""


NOTHING = Beside(router_losses=False)
"""The objective alone: how experts are trained after pretraining (OLMoE, arXiv:2409.02060, section 4.3), and how
preferences and reinforcement leave multi-token blocks and score biases frozen (MiMo, arXiv:2505.07608)."""


@dataclass(frozen=True)
class Course:
    """How a step trains."""

    lr: float
    """Learning rate of the step."""
    optimizer: Optimizer
    """The other settings of its update."""
    beside: Beside = Beside()
    """What it trains beside the objective."""
    network: Network | None = None
    """The network as it computes in this step, where that changes on the way (its rotary base)."""


def steady(optimizer: Optimizer, schedule: Schedule, steps: int, beside: Beside = Beside()) -> Callable[[int], Course]:
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
    evaluate: Callable[[Placed], dict[str, float]] | None = None,
    first_values: Callable[[str], Tensor] | None = None,
    describe: Describe | None = None,
) -> Progress:
    """Train `model` in place up to `steps` optimizer steps, going on from the workspace's newest checkpoint.

    `batch_at(step, share)` gives a process's share of a step's rows (see `rows.py`) and is called when their turn
    comes, so it may use the model as it then is. `course(step)` says how the step trains. `denominator(rows)` is what
    the step's summed loss is divided by, counted over the whole step: the gradient does not depend on
    `loop.micro_rows`. `evaluate(placed)` returns named numbers for the metrics stream. `first_values(name)` gives the
    whole tensors of a model on the meta device, where there is no checkpoint. `describe` makes each checkpoint a model
    folder.

    Under a plan (`loop.parallel`) every process of the run calls this with the same arguments, and the model is cut
    down to its part. Raises GlassboxError when loss or gradient stop being finite and `loop.safety` does not go on,
    Interrupted when a stop was requested.
    """
    torch.set_num_threads(workspace.threads)
    set_precision(model, loop, workspace.device)
    placed = place(model, loop.parallel, workspace.device)
    ranks = placed.ranks
    for part in placed.parts:
        recompute_blocks(part, loop.recompute)
        if loop.compile:
            compile_blocks(part)
    if first_values is not None:
        fill(placed, first_values)
    optimizer = build_optimizer(placed, course(0).optimizer)
    report_hangs(workspace)
    checkpoints = workspace.path("checkpoints")
    progress = checkpoint.resume(checkpoints, placed, optimizer)
    workspace.rewind_metrics(progress.step)
    scaling = placed.model.compute_dtype == torch.float16
    meter, pace = Meter(placed, progress), Pace(ranks, loop.safety.slow)

    stacks = workspace.path(STACKS.format(rank=ranks.rank))
    with (
        watchdog(stacks, loop.safety.watchdog if ranks.world > 1 else 0.0) as alive,
        Saver(checkpoints, placed, optimizer, describe) as saver,
        tracking(loop.trackers, workspace, progress.step),
    ):
        if progress.step == 0 and "rewind" in (loop.safety.nonfinite, loop.safety.on_spike):
            saver.save(progress)
        while progress.step < steps:
            alive()
            started, tokens, now = time.perf_counter(), progress.tokens, course(progress.step)
            rows = to_rows(batch_at(data_step(progress.step, steps, progress.replaced), ranks.share))
            own = time.perf_counter() - started
            if now.network is not None:
                for part in placed.parts:
                    part.network = now.network
            scale = progress.loss_scale if scaling else 1.0
            result = accumulate(placed, rows, objective, denominator(rows), loop.micro_rows, now.beside, scale)
            sum_over_columns(placed)
            loss, grad_norm = result.loss, clip_gradients(placed, now.optimizer.clip)
            response = _response(progress, loss, grad_norm, loop, scaling, workspace)
            if response in ("go on", "warn"):
                set_rates(optimizer, now.lr, now.optimizer)
                optimizer.step()
                move_biases(placed, result, now.beside.score_bias_rate)
            optimizer.zero_grad(set_to_none=True)
            if response == "rewind":
                progress = _go_back(saver, progress, workspace)
                meter = Meter(placed, progress)
                continue

            remember(progress, loss, grad_norm, loop.safety)
            progress.step += 1
            meter.count(rows, result, time.perf_counter() - started, now.beside.multi_token > 0)
            pace.count(own, time.perf_counter() - started)
            done = progress.step == steps
            workspace.progress(progress.step, steps, f"loss {loss:.3f} · {meter.rate():,.0f} tokens/s")
            if progress.step % loop.log_every == 0 or done:
                metrics = dict(result.metrics)
                if scaling:
                    metrics |= {"loss_scale": progress.loss_scale, "skipped_steps": progress.skipped}
                metrics |= meter.read(result)
                workspace.metric(progress.step, loss=loss, lr=now.lr, grad_norm=grad_norm, **metrics)
                pace.report(workspace, progress.step)
            if evaluate and (done or (loop.evaluate_every and progress.step % loop.evaluate_every == 0)):
                alive()
                with torch.no_grad():
                    progress.evaluation = evaluate(placed)
                placed.settle()
                workspace.metric(progress.step, **progress.evaluation)
            stopping = not done and ranks.most([float(workspace.stop_requested())])[0] > 0
            keep = is_kept(loop, tokens, progress)
            if progress.step % loop.checkpoint_every == 0 or keep or done or stopping:
                alive()
                saver.save(progress, keep)
            saver.check()
            if stopping:
                raise Interrupted("stopped on request; run the same command again to go on")
    return progress


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
    saver.optimizer.state.clear()
    found = rewound(checkpoint.resume(saver.folder, saver.placed, saver.optimizer), progress)
    checkpoint.amend(saver.folder, saver.placed, found)
    workspace.rewind_metrics(found.step)
    return found


@dataclass
class StepResult:
    """A step's outcome over all processes, gradients aside: they are in the parameters."""

    loss: float
    """The objective's sum over the step's denominator, router losses not included."""
    metrics: dict[str, float]
    """The objective's other sums, over the same denominator; `router_loss` for a mixture of experts."""
    load_LE: Tensor | None
    """Tokens that each expert of each layer took."""
    tokens: int
    """Tokens read, without padding."""
    labels: int
    """Tokens with a target."""
    positions: int
    """Positions computed, padding included."""


def accumulate(
    model: Placed | Transformer,
    rows: Rows,
    objective: Objective,
    denominator: float,
    micro_rows: int,
    beside: Beside = Beside(),
    scale: float = 1.0,
) -> StepResult:
    """Add the gradient of (sum of the objective / denominator + what is trained beside it) to the parameters.

    `rows` are this process's, and `denominator` is counted on them; both are counted together over all processes. One
    micro-batch is in memory at a time. Router losses are means over a micro-batch's tokens, so they enter with the
    micro-batch's share of the step's tokens; the multi-token loss is a mean over the step's targets of each block.
    `scale` multiplies the loss on its way back, and is divided out of the gradient again.
    """
    placed = model if isinstance(model, Placed) else Placed([model])
    network, ranks = placed.model.network, placed.ranks
    depth = network.multi_token.depth if network.multi_token else 0
    drafts = beside.multi_token > 0 and depth > 0
    counted = [denominator, real_tokens(rows), labelled_tokens(rows)]
    counted += [int(has_target(rows, k + 1).sum()) for k in range(1, depth + 1)] if drafts else []
    whole, tokens, labels, *targets = ranks.total([count * ranks.first_of_row for count in counted])

    def score(part: Transformer, output: Output, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = output.state_BTD.new_zeros(()), dict[str, Tensor]()
        if part.ends:
            objective_sum, metrics = objective(output, part.head_VD, rows)
            sums = {name: value / max(1, whole) for name, value in {"loss": objective_sum, **metrics}.items()}
            loss = sums["loss"]
        if output.load_LE is not None:
            sums["router_loss"] = output.aux * (real_tokens(rows) / max(1, tokens))
            if beside.router_losses:
                loss = loss + sums["router_loss"]
        if part.ends and drafts:
            sums["multi_token_loss"] = multi_token(output.drafts, part.head_VD, rows, targets)
            loss = loss + beside.multi_token * sums["multi_token_loss"]
        return loss, sums

    run = _through_pipeline if placed.pipeline else _one_by_one
    totals, load_LE, positions = run(placed, rows, micro_rows, score, drafts, scale)
    if scale != 1.0:
        for _, parameter in placed.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale
    if "router_loss" in totals and ranks.columns.index > 0:
        totals["router_loss"] *= 0  # the same number on every process of a row
    *summed, computed = ranks.total([*map(float, totals.values()), positions * ranks.first_of_row])
    found = dict(zip(totals, summed, strict=True))
    if load_LE is not None:
        ranks.sum_(load_LE)
    return StepResult(found.pop("loss"), found, load_LE, int(tokens), int(labels), int(computed))


def _one_by_one(
    placed: Placed, rows: Rows, micro_rows: int, score: Score, drafts: bool, scale: float
) -> tuple[dict[str, Tensor], Tensor | None, int]:
    """Forward and backward of each micro-batch in turn: this process's sums, loads and positions."""
    totals: dict[str, Tensor] = {}
    load_LE, positions = None, 0
    for micro, last in placed.micro_batches(rows, micro_rows):
        hold_back(placed, last)
        output, own = placed.output(micro, drafts)
        loss, sums = score(placed.model, output, own)
        (loss * scale).backward()
        for name, value in sums.items():
            totals[name] = totals.get(name, 0) + value.detach()
        if output.load_LE is not None:
            load_LE = output.load_LE if load_LE is None else load_LE + output.load_LE
        positions += micro["ids"].numel()
    return totals, load_LE, positions


def _through_pipeline(
    placed: Placed, rows: Rows, micro_rows: int, score: Score, drafts: bool, scale: float
) -> tuple[dict[str, Tensor], Tensor | None, int]:
    """The same by all processes of a pipeline together."""
    assert placed.pipeline is not None
    micros = placed.pipeline.micro_batches(rows, micro_rows)
    totals, load_LE = placed.pipeline.accumulate(micros, score, drafts, scale)
    return totals, load_LE, sum(micro["ids"].numel() for micro in micros)


def move_biases(placed: Placed, result: StepResult, rate: float) -> None:
    """Move every router's score bias by `rate` against the step's loads (arXiv:2408.15664, algorithm 1)."""
    if result.load_LE is None or rate == 0:
        return
    for part in placed.parts:
        # blocks that did not run have no load
        for router, load_E in zip(part.routers(), result.load_LE[part.first_load :], strict=False):
            router.move_bias(load_E, rate)


def compile_blocks(model: Transformer) -> None:
    """Put each block through torch.compile, in place; without a compiler say so and stay eager."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        get_cpp_compiler()
    except (ImportError, InvalidCxxCompiler):
        log.warning("no C++ compiler was found: training without torch.compile")
        return
    for block in all_blocks(model):
        block.compile()


class Meter:
    """Counts a run's work into its `Progress` and reads rates since the last reading."""

    def __init__(self, placed: Placed, progress: Progress):
        self.progress, self.model = progress, placed.model
        self.peak = peak_flops(torch.device(placed.ranks.device), self.model.compute_dtype) * placed.ranks.world
        self._mark = (progress.tokens, progress.seconds, progress.flops)

    def count(self, rows: Rows, result: StepResult, seconds: float, ahead: bool) -> None:
        self.progress.tokens += result.tokens
        self.progress.labels += result.labels
        self.progress.seconds += seconds
        context = rows["ids"].shape[-1]
        flops = train_flops(self.model.network, self.model.vocab_size, context, ahead=ahead)
        self.progress.flops += flops * result.positions

    def rate(self) -> float:
        """Tokens per second since the last reading."""
        tokens, seconds, _ = self._mark
        return (self.progress.tokens - tokens) / max(self.progress.seconds - seconds, 1e-9)

    def read(self, result: StepResult) -> dict[str, float]:
        """The metrics of speed and balance, and a new start for the rates."""
        _, seconds, flops = self._mark
        flops_per_second = (self.progress.flops - flops) / max(self.progress.seconds - seconds, 1e-9)
        values = {
            "tokens": self.progress.tokens,
            "tokens_per_second": round(self.rate(), 1),
            "flops_per_second": flops_per_second,
            "mfu": round(flops_per_second / self.peak, 4),
        }
        if result.load_LE is not None:
            share_LE = result.load_LE / result.load_LE.sum(-1, keepdim=True)
            self.progress.expert_load = share_LE.tolist()
            values["expert_load_max_over_mean"] = float(share_LE.max(-1).values.mean() * share_LE.shape[-1])
        self._mark = (self.progress.tokens, self.progress.seconds, self.progress.flops)
        return values
