"""Dropless token-choice mixture of experts: router, grouped products, balancing losses (OLMoE, arXiv:2409.02060).

Letters: T tokens, D model width, E experts, K experts of a token, R = T * K rows sorted by expert, H inner width.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from glassbox.model.feed_forward import swiglu
from glassbox.recipe.network import Experts, Network

ALIGN = 16
"""Rows to which an expert's rows are aligned where that pays (`MixtureOfExperts._layout`)."""


def _kernel(x_RD: Tensor, w_EDH: Tensor, ends_E: Tensor) -> Tensor:
    return F.grouped_mm(x_RD, w_EDH, offs=ends_E)


@torch.library.custom_op("glassbox::grouped_product", mutates_args=())
def grouped_product(x_RD: Tensor, w_EDH: Tensor, ends_E: Tensor) -> Tensor:
    """x_RD, rows sorted by expert, times each row's expert's matrix -> (R, H).

    `ends_E` (int32) holds the row after each expert's last; ends_E[-1] must be R. Empty experts are fine. An operator
    of its own because the built-in one refuses fp32 when compiled or on the meta device and expanded gradients always,
    and is counted as zero operations.
    """
    return _kernel(x_RD, w_EDH, ends_E)


@grouped_product.register_fake
def _(x_RD: Tensor, w_EDH: Tensor, ends_E: Tensor) -> Tensor:
    return x_RD.new_empty(x_RD.shape[0], w_EDH.shape[-1])


@torch.library.custom_op("glassbox::grouped_weight_gradient", mutates_args=())
def grouped_weight_gradient(x_RD: Tensor, grad_RH: Tensor, ends_E: Tensor) -> Tensor:
    """Sum over each expert's rows of the outer product of input and gradient -> (E, D, H); zero without rows."""
    return F.grouped_mm(x_RD.t(), grad_RH, offs=ends_E)


@grouped_weight_gradient.register_fake
def _(x_RD: Tensor, grad_RH: Tensor, ends_E: Tensor) -> Tensor:
    return x_RD.new_empty(ends_E.shape[0], x_RD.shape[1], grad_RH.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_RH: Tensor) -> tuple[Tensor, Tensor, None]:
    x_RD, w_EDH, ends_E = ctx.saved_tensors
    grad_RH = grad_RH.contiguous()
    return (
        grouped_product(grad_RH, w_EDH.transpose(-2, -1), ends_E),
        grouped_weight_gradient(x_RD, grad_RH, ends_E),
        None,
    )


grouped_product.register_autograd(_backward, setup_context=_save)


@register_flop_formula([torch.ops.glassbox.grouped_product, torch.ops.glassbox.grouped_weight_gradient])
def _flops(x_shape: Any, w_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * x_shape[0] * x_shape[1] * w_shape[-1]


@dataclass(frozen=True)
class Routing:
    """A layer's choice of experts."""

    logit_TE: Tensor
    prob_TE: Tensor
    weight_TK: Tensor
    expert_TK: Tensor


class Router(nn.Module):
    """x_TD -> Routing. Scores and softmax run in fp32; ties go the way of `torch.topk`."""

    def __init__(self, dim: int, experts: Experts):
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts.count, dim))

    def forward(self, x_TD: Tensor) -> Routing:
        logit_TE = F.linear(x_TD.float(), self.weight.float())
        prob_TE = logit_TE.softmax(dim=-1)
        weight_TK, expert_TK = prob_TE.topk(self.experts.top_k, dim=-1)
        if self.experts.normalise:
            weight_TK = weight_TK / weight_TK.sum(dim=-1, keepdim=True)
        return Routing(logit_TE, prob_TE, weight_TK, expert_TK)


def balance(routing: Routing, valid_T: Tensor | None, experts: Experts) -> tuple[Tensor, Tensor]:
    """A layer's router loss (scalar, weighted) and its load (E,), tokens sent to each expert.

    Load balancing: E / (T K) * sum_e load_e * mean probability_e, 1 when balanced and E/K at worst; the gradient flows
    through the probabilities. Z-loss: mean over tokens of logsumexp^2, divided by K. Both as OLMoE's training code
    scales them, which is K times less than equations 3 and 4 of the paper. Tokens outside `valid_T` (None: all are in)
    count in nothing.
    """
    z_T = routing.logit_TE.logsumexp(dim=-1).square()
    chosen_R = routing.expert_TK.flatten()
    kept_T = torch.ones_like(z_T) if valid_T is None else valid_T.to(z_T.dtype)
    tokens = kept_T.sum().clamp_min(1)
    load_E = kept_T.new_zeros(experts.count).scatter_add_(0, chosen_R, kept_T.repeat_interleave(experts.top_k))
    mean_E, z = kept_T @ routing.prob_TE / tokens, (kept_T @ z_T) / tokens
    imbalance = experts.count * (load_E / (tokens * experts.top_k) * mean_E).sum()
    return experts.balance_loss * imbalance + experts.z_loss * z / experts.top_k, load_E.long()


class MixtureOfExperts(nn.Module):
    """x_TD -> (y_TD, Routing): the weighted sum of K SwiGLU experts for each token; no token is ever dropped."""

    def __init__(self, network: Network):
        super().__init__()
        assert network.experts is not None
        experts = network.experts
        self.router = Router(network.dim, experts)
        self.gate_up_EDH = nn.Parameter(torch.empty(experts.count, network.dim, 2 * experts.hidden))
        self.down_EHD = nn.Parameter(torch.empty(experts.count, experts.hidden, network.dim))

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Routing]:
        routing = self.router(x_TD)
        T, K = routing.expert_TK.shape
        sorted_R, order_R = routing.expert_TK.flatten().sort(stable=True)
        slot_R, ends_E, rows = self._layout(sorted_R, x_TD)
        x_RD = x_TD.index_select(0, order_R // K)
        if rows > T * K:
            x_RD = x_RD.new_zeros(rows, x_RD.shape[1]).index_copy(0, slot_R, x_RD)
        # decoding calls the kernel itself: an operator defined in Python costs tens of microseconds a call
        product = grouped_product if torch.is_grad_enabled() else _kernel
        hidden_RH = swiglu(product(x_RD, self.gate_up_EDH.to(x_TD.dtype), ends_E))
        y_RD = product(hidden_RH, self.down_EHD.to(x_TD.dtype), ends_E)
        place_R = torch.empty_like(order_R).scatter_(0, order_R, slot_R)
        y_TKD = y_RD.index_select(0, place_R).view(T, K, -1)
        return (y_TKD * routing.weight_TK[:, :, None].to(y_TKD.dtype)).sum(dim=1), routing

    def _layout(self, sorted_R: Tensor, x_TD: Tensor) -> tuple[Tensor, Tensor, int]:
        """(row of each sorted choice, int32 end of each expert's rows, rows in all).

        Training in bf16 on a CPU, an expert's rows start at a multiple of `ALIGN` and the gaps are zero rows: oneDNN
        compiles a kernel for every number of rows it has not met, which made the product 2.4 times as slow (4,096 rows
        of 128 by 384, 8 experts: 3.3 ms against 1.3). The last expert takes the slack: the shape never varies.
        """
        experts, R = self.gate_up_EDH.shape[0], sorted_R.shape[0]
        numbers_E = torch.arange(experts, device=sorted_R.device)
        first_E = torch.searchsorted(sorted_R, numbers_E)
        last_E = torch.searchsorted(sorted_R, numbers_E, right=True)
        slot_R = torch.arange(R, device=sorted_R.device)
        if x_TD.dtype != torch.bfloat16 or x_TD.device.type != "cpu" or not torch.is_grad_enabled():
            return slot_R, last_E.int(), R
        rows = -(-(R + experts * (ALIGN - 1)) // ALIGN) * ALIGN
        end_E = ((last_E - first_E + ALIGN - 1) // ALIGN * ALIGN).cumsum(0)
        start_E = torch.cat([end_E.new_zeros(1), end_E[:-1]])
        slot_R = slot_R + (start_E - first_E)[sorted_R]
        end_E[-1] = rows
        return slot_R, end_E.int(), rows
