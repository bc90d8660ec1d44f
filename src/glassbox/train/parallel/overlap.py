"""The experts' exchange of one micro-batch under the computation of another.

A forward and a backward pass that share a slot of the schedule are cut at the exchanges of their layers, and take
turns: one sets out an exchange and pauses, the other computes until its own next exchange is on the way, and so on
(dots.llm1, arXiv:2506.05767, section 3.1; DeepSeek-V3's DualPipe, arXiv:2412.19437, section 3.2.1):

    forward    attention, router | dispatch | experts | combine | sum, attention of the next layer ...
    backward   sum | combine | experts | dispatch | attention, sum of the layer before ...

Between two cuts stands a piece, whose gradients are computed by themselves. Exchanges are asynchronous collectives:
on a GPU they run on a stream of their own, on a CPU in gloo's threads.

Letters: B sequences, T columns, D model width, K experts of a token, R rows of an exchange, E experts.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight
from torch.distributed.pipelining.schedules import _wait_batch_p2p

from glassbox.model.attention import Shared
from glassbox.model.experts import MixtureOfExperts, Routing, choices
from glassbox.model.transformer import Block, Transformer
from glassbox.train.parallel.experts import Routes, combined, gathered, local_experts, routes_of
from glassbox.train.parallel.work import Stage, WithLoss
from glassbox.train.rows import Rows, own_targets

Tensors = tuple[Tensor, ...]
Steps = Generator[None, None, Any]
"""Pauses whenever an exchange is on its way, and returns what came of it all."""


@dataclass(frozen=True)
class Piece:
    """Computation between two cuts."""

    sources: Tensors
    """What it was given, as earlier pieces made it."""
    leaves: Tensors
    """The same, where its own graph begins."""
    made: Tensors


@dataclass(frozen=True)
class Exchange:
    """Rows that travelled."""

    source: Tensor
    made: Tensor
    sent: list[int]
    received: list[int]


@dataclass
class Tape:
    """A micro-batch's way through a stage, kept for its way back."""

    group: Any
    """The processes that experts are divided among."""
    pieces: list[Piece | Exchange] = field(default_factory=list)

    def run(self, function: Callable[..., tuple[Tensors, Any]], *sources: Tensor) -> tuple[Tensors, Any]:
        """Compute a piece; `function` gives tensors, and what else later pieces want to know."""
        leaves = tuple(source.detach().requires_grad_() for source in sources)
        made, notes = function(*leaves)
        self.pieces.append(Piece(sources, leaves, made))
        return made, notes

    def exchange(self, rows_RD: Tensor, sent: list[int], received: list[int]) -> Steps:
        """Send each process its rows and take theirs."""
        made = yield from travel(rows_RD.detach(), sent, received, self.group)
        self.pieces.append(Exchange(rows_RD, made, sent, received))
        return made

    def back(self, grad: Tensor | None, weights: list[nn.Parameter], split: bool) -> Steps:
        """The backward pass from the gradient of what the last piece made (None: 1). Returns the gradient of what the
        first one was given, and with `split` the work that is left for the gradients of weights."""
        first, last, later = self.pieces[0], self.pieces[-1].made[0], list[Callable[[], Any]]()
        assert isinstance(first, Piece)
        grads = {id(last): torch.ones_like(last) if grad is None else grad}
        for piece in reversed(self.pieces):
            if isinstance(piece, Exchange):
                got = yield from travel(grads.pop(id(piece.made)), piece.received, piece.sent, self.group)
                grads[id(piece.source)] = got
                continue
            made = [tensor for tensor in piece.made if id(tensor) in grads]
            given = [grads.pop(id(tensor)) for tensor in made]
            if not split:
                torch.autograd.backward(made, given)
            elif piece.leaves:
                _, groups = stage_backward_input(made, given, list(piece.leaves), iter(weights))
                later.append(partial(stage_backward_weight, iter(weights), groups, retain_graph=True))
            else:
                later.append(partial(torch.autograd.backward, made, given))
            for source, leaf in zip(piece.sources, piece.leaves, strict=True):
                if leaf.grad is not None:
                    grads[id(source)] = grads[id(source)] + leaf.grad if id(source) in grads else leaf.grad
        return grads.get(id(first.sources[0])) if first.sources else None, later


def travel(rows_RD: Tensor, sent: list[int], received: list[int], group: Any) -> Steps:
    """Send each process of the group its rows and take theirs, with a pause while they are on the way."""
    rows_RD = rows_RD.contiguous()
    came_RD = rows_RD.new_empty(sum(received), rows_RD.shape[1])
    work = dist.all_to_all_single(came_RD, rows_RD, received, sent, group=group, async_op=True)
    yield
    work.wait()
    return came_RD


def alternate(*several: Steps) -> list[Any]:
    """Let them take turns, each from one pause to its next; what they return."""
    results: list[Any] = [None] * len(several)
    left = dict(enumerate(several))
    while left:
        for number, steps in list(left.items()):
            try:
                next(steps)
            except StopIteration as end:
                results[number] = end.value
                del left[number]
    return results


def forward_steps(
    tape: Tape, part: Transformer, micro: Rows, state_BTD: Tensor | None, end: Callable[..., Any]
) -> Steps:
    """A stage's forward pass; `end(ids, shared, chosen, state, logits and scores of each layer)` is its last piece."""
    flat = {name: micro[name].flatten(0, -2) for name in ("ids", "positions", "documents") if name in micro}
    shared = part.shared(flat["ids"], flat.get("positions"), flat.get("documents"))
    if state_BTD is None:
        (state_BTD,), _ = tape.run(lambda: ((part.embed(part.columns.own(flat["ids"])),), None))
    scores: list[Tensor] = []
    chosen: list[Tensors] = []
    for block in part.blocks:
        assert isinstance(block, Block)
        moe = block.feed_forward
        if not isinstance(moe, MixtureOfExperts):
            (state_BTD,), _ = tape.run(partial(_dense, block, shared), state_BTD)
            continue
        made, (routes, chose) = tape.run(partial(_before, block, shared, tape.group), state_BTD)
        base_BTD, rows_RD, weight_TK, *judged = made
        came_RD = yield from tape.exchange(rows_RD, routes.sent, routes.received)
        (y_RD,), _ = tape.run(partial(_experts, moe, routes), came_RD)
        back_RD = yield from tape.exchange(y_RD, routes.received, routes.sent)
        (state_BTD,), _ = tape.run(partial(_after, routes), base_BTD, back_RD, weight_TK)
        scores, chosen = [*scores, *judged], [*chosen, chose]
    (out,), _ = tape.run(partial(end, flat["ids"], shared, chosen), state_BTD, *scores)
    return out.detach()


def _dense(block: Block, shared: Shared, x_BTD: Tensor) -> tuple[Tensors, None]:
    return (block(x_BTD, shared, None)[0],), None


def _before(block: Block, shared: Shared, group: Any, x_BTD: Tensor) -> tuple[Tensors, tuple[Routes, Tensors]]:
    """(state with attention and shared experts, rows for the exchange, weights, logits, scores), (routes, choices)."""
    moe, dtype = block.feed_forward, shared.cos.dtype
    assert isinstance(moe, MixtureOfExperts)
    x_BTD = x_BTD + block.attention(block.attention_norm(x_BTD, dtype), shared, None)
    normed_BTD = block.feed_forward_norm(x_BTD, dtype)
    logit_BTE, score_BTE = moe.router(normed_BTD)
    weight_TK, expert_TK = moe.router.choose(score_BTE.flatten(0, 1))
    routes = routes_of(expert_TK, moe.experts.count, group)
    rows_RD = gathered(normed_BTD.flatten(0, 1), routes, expert_TK.shape[1])
    if moe.shared is not None:
        x_BTD = x_BTD + moe.shared(normed_BTD)
    return (x_BTD, rows_RD, weight_TK, logit_BTE, score_BTE), (routes, choices(expert_TK))


def _experts(moe: MixtureOfExperts, routes: Routes, rows_RD: Tensor) -> tuple[Tensors, None]:
    return (local_experts(moe, rows_RD, routes.expert_R),), None


def _after(routes: Routes, base_BTD: Tensor, back_RD: Tensor, weight_TK: Tensor) -> tuple[Tensors, None]:
    return (base_BTD + combined(back_RD, weight_TK, routes).view_as(base_BTD),), None


class CutStage(Stage):
    """A stage whose passes pause at the exchanges of its layers."""

    def __init__(self, *arguments: Any, experts: Any):
        super().__init__(*arguments)
        self.experts = experts
        self.tapes: dict[int, Tape] = {}
        self.forward_done: dict[int, Tensor] = {}
        self.backward_done: dict[int, tuple[Tensor | None, list[Any]]] = {}
        if isinstance(self.submod, FSDPModule):  # a forward pass of the whole part would do it
            self.submod._get_fsdp_state()._lazy_init()

    def forward_steps(self, number: int, given: Tensor) -> Steps:
        tape, state_BTD = Tape(self.experts), None if self.is_first else given
        self.tapes[number] = tape
        micro = self.work.micros[number]
        return forward_steps(tape, self.submod, micro, state_BTD, partial(self._end, micro))

    def _end(
        self, micro: Rows, ids_BT: Tensor, shared: Shared, chosen: list[Any], state_BTD: Tensor, *scores: Tensor
    ) -> tuple[Tensors, None]:
        """The last piece: from the state to the loss, or to the state with this stage's part of the loss."""
        part, work = self.submod, self.work
        routings = [Routing(*one) for one in zip(scores[::2], scores[1::2], chosen, strict=True)]
        output = part.finish(state_BTD, list(routings), ids_BT, shared, None, work.drafts)
        loss = work.loss(self.stage_index, part, output, own_targets(part, micro, work.drafts))
        return (loss if self.is_last else WithLoss.apply(state_BTD, loss),), None

    def backward_steps(self, number: int, grad: Tensor | None, split: bool = False) -> Steps:
        if isinstance(self.submod, FSDPModule):  # until the schedule asks for it, after the last micro-batch
            self.submod.set_is_last_backward(False)
            self.submod.set_reshard_after_backward(False)
            self.submod.set_requires_gradient_sync(False)
        return self.tapes.pop(number).back(grad, list(self.submod.parameters()), split)

    def forward_maybe_with_nosync(self, given: Tensor, number: Tensor) -> Tensor:
        n = int(number)
        if n in self.forward_done:
            return self.forward_done.pop(n)
        return alternate(self.forward_steps(n, given))[0]

    def backward_maybe_with_nosync(
        self, backward_type: str, bwd_kwargs: dict[str, Any], last_backward: bool = False
    ) -> Any:
        if backward_type == "weight":
            for left in bwd_kwargs["param_groups"]:
                left()
            return (), None
        n = int(bwd_kwargs["input_values"][-1])
        if n in self.backward_done:
            grad, later = self.backward_done.pop(n)
        else:
            given = None if self.is_last else bwd_kwargs["output_grads"][0]
            grad, later = alternate(self.backward_steps(n, given, backward_type == "input"))[0]
        return (grad, None), later


def together(action: Any, context: Any) -> None:
    """A slot with a forward and a backward pass: both by turns, then what PyTorch's runtime does after each alone."""
    schedule = context.schedule_ref
    forward, backward = action.sub_actions
    stages: dict[int, CutStage] = {stage.stage_index: stage for stage in schedule._stages}
    ahead, back = stages[forward.stage_index], stages[backward.stage_index]
    f, b = forward.microbatch_index, backward.microbatch_index
    for stage in (ahead, back):
        schedule._assert_unsharded(stage)
    if not ahead.is_first and ahead.stage_index - 1 not in stages:
        _wait_batch_p2p(schedule.fwd_recv_ops.pop((ahead.stage_index, f)))
    if not back.is_last and back.stage_index + 1 not in stages:
        _wait_batch_p2p(schedule.bwd_recv_ops.pop((back.stage_index, b)))
    given = context.arg_mbs[f][0] if ahead.is_first else ahead._retrieve_recv_activations(f)[0]
    grad = None if back.is_last else back._retrieve_recv_grads(b)[0]
    both = alternate(back.backward_steps(b, grad), ahead.forward_steps(f, given))
    back.backward_done[b], ahead.forward_done[f] = both

    output = ahead.forward_one_chunk(f, context.arg_mbs[f], context.kwarg_mbs[f], save_forward_output=False)
    schedule._maybe_compute_loss(ahead, output, context.target_mbs, f)
    if ahead.stage_index + 1 in stages:
        stages[ahead.stage_index + 1].set_local_fwd_input(output, f)
    schedule.backward_counter[back.stage_index] += 1
    last = schedule.backward_counter[back.stage_index] == schedule._n_microbatches
    back.backward_one_chunk(b, loss=schedule._maybe_get_loss(back, b), full_backward=True, last_backward=last)
    if back.stage_index - 1 in stages:
        stages[back.stage_index - 1].set_local_bwd_input(back.get_local_bwd_output(b), b)
