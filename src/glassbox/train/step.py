"""The gradient of a step: its micro-batches through the network and the objective, over all processes.

Everything is a sum divided by what is counted over the whole step, so the gradient depends neither on the size of
micro-batches nor on the processes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from glassbox.model.transformer import Output, Transformer
from glassbox.train.losses import multi_token
from glassbox.train.parallel.place import Placed, hold_back
from glassbox.train.parallel.work import Score
from glassbox.train.rows import Rows, has_target, labelled_tokens, real_tokens

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


ROUTERS = Beside()
"""Router losses alone."""
NOTHING = Beside(router_losses=False)
"""The objective alone: how experts are trained after pretraining (OLMoE, arXiv:2409.02060, section 4.3), and how
preferences and reinforcement leave multi-token blocks and score biases frozen (MiMo, arXiv:2505.07608)."""


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
    beside: Beside = ROUTERS,
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
