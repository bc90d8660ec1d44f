"""What a stage of a pipeline does with a micro-batch, as PyTorch's schedules ask for it.

Letters: B sequences of a micro-batch, T columns of this process, D model width, E experts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining._backward import stage_backward_weight

from glassbox.model.transformer import Output, Transformer
from glassbox.train.rows import Rows, columns_output

Score = Callable[[Transformer, Output, Rows], tuple[Tensor, dict[str, Tensor]]]
"""(stretch, what it gave, micro-batch) -> (loss, summed metrics): the objective where the network ends, and everywhere
the router losses of the stretch."""


@dataclass
class Work:
    """A step's work for the stages of a process, and what has come of it so far."""

    micros: list[Rows]
    score: Score
    drafts: bool
    scale: float
    """Of the loss on its way back."""
    totals: dict[str, Tensor] = field(default_factory=dict)
    loads: dict[int, Tensor] = field(default_factory=dict)
    """Of each stage."""

    def loss(self, number: int, part: Transformer, output: Output, rows: Rows) -> Tensor:
        """What a stage adds to the loss (scalar), counted in the totals without the scale."""
        loss, sums = self.score(part, output, rows)
        for name, value in sums.items():
            self.totals[name] = self.totals.get(name, 0) + value.detach()
        if output.load_LE is not None:
            self.loads[number] = self.loads.get(number, 0) + output.load_LE
        return loss * self.scale


class Stage(PipelineStage):
    """A stretch of layers as PyTorch's schedules drive it: from a state (or, the first, nothing) and the number of a
    micro-batch to a state, or at the end to the loss."""

    work: Work
    submod: Transformer

    def __init__(self, part: Transformer, number: int, count: int, state_BTD: Tensor, group: Any, device: str):
        none, loss = torch.zeros(1, dtype=torch.int64), torch.zeros((), requires_grad=True)
        super().__init__(
            part,
            number,
            count,
            torch.device(device),
            input_args=none if number == 0 else state_BTD,
            output_args=loss if part.ends else state_BTD,
            group=group,
        )

    def forward_maybe_with_nosync(self, given: Tensor, number: Tensor) -> Tensor:
        micro, state_BTD = self.work.micros[int(number)], None if self.is_first else given
        output, rows = columns_output(self.submod, micro, self.work.drafts, state_BTD)
        loss = self.work.loss(self.stage_index, self.submod, output, rows)
        return loss if self.is_last else WithLoss.apply(output.state_BTD, loss)

    def _get_recv_ops(self, recv_infos: tuple[Any, ...]) -> list[dist.P2POp]:
        """Room for what comes is made when it is asked for: PyTorch keeps it for every micro-batch, all the time."""
        for info in recv_infos:
            if not info.is_root_arg:
                info.buffer = info.tensor_meta.to_tensor(self.device)
        return super()._get_recv_ops(recv_infos)

    def backward_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **named: Any) -> None:
        super().backward_one_chunk(bwd_chunk_id, *arguments, **named)
        for info in (*self.args_recv_info[bwd_chunk_id], *self.grad_recv_info[bwd_chunk_id]):
            info.buffer = None

    def backward_maybe_with_nosync(
        self, backward_type: str, bwd_kwargs: dict[str, Any], last_backward: bool = False
    ) -> Any:
        """PyTorch frees the graph with the first group of weights whose gradients it computes apart from the states';
        the groups of weights that are used in several places (head, embedding) overlap."""
        if backward_type == "weight":
            groups = bwd_kwargs["param_groups"]
            return (), stage_backward_weight(self.submod.parameters(), groups, retain_graph=True)
        return super().backward_maybe_with_nosync(backward_type, bwd_kwargs, last_backward)


class WithLoss(torch.autograd.Function):
    """The state as it is, and a gradient of 1 for a loss that this stage adds. Not a view, as schedules with a split
    backward pass detach what a stage gives in place."""

    @staticmethod
    def forward(ctx: Any, state_BTD: Tensor, loss: Tensor) -> Tensor:
        return state_BTD.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0].new_ones(())
