"""Mixture of experts without dropped tokens: router, grouped products, balancing.

A token's K experts are rows of one tall matrix, sorted by expert, and each weight is one grouped product over it. The
whole computation is one operator with a backward pass of its own, which keeps only the tokens and the gate and up
activations, and counts its operations.

Letters: B rows of the batch, T tokens (of all rows), S tokens of a row, D model width, E experts, K experts of a token,
R expert rows, H inner width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass
from torch.utils.flop_counter import register_flop_formula

from glassbox.model.feed_forward import FeedForward
from glassbox.recipe.network import Experts, Network

ALIGN = 16
"""Rows to which an expert's rows are aligned where that pays (`places`)."""


def grouped_product(x_RD: Tensor, w_EDH: Tensor, ends_E: Tensor) -> Tensor:
    """x_RD, rows sorted by expert, times each row's expert's matrix -> (R, H). `ends_E` (int32) holds the row after
    each expert's last; ends_E[-1] is R. An expert may have no row."""
    return F.grouped_mm(x_RD, w_EDH, offs=ends_E)


def grouped_weight_gradient(x_RD: Tensor, grad_RH: Tensor, ends_E: Tensor) -> Tensor:
    """Sum over each expert's rows of the outer product of input and gradient -> (E, D, H); zero without rows."""
    return F.grouped_mm(x_RD.t(), grad_RH, offs=ends_E)


def _rows(weight_TK: Tensor, place_TK: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(token of each expert row, its weight (R, 1)); rows between the experts' get token 0 with weight 0."""
    place, K = place_TK.flatten(), place_TK.shape[1]
    numbers = torch.arange(place.shape[0], device=place.device).div_(K, rounding_mode="floor")
    token_R = place.new_zeros(rows).scatter_(0, place, numbers)
    return token_R, weight_TK.new_zeros(rows).scatter_(0, place, weight_TK.flatten())[:, None]


def _halves(gate_up_RH: Tensor) -> tuple[Tensor, Tensor]:
    """Gate and up. The gate is copied: over rows apart from each other silu takes up to ten times as long on a CPU."""
    gate_RH, up_RH = gate_up_RH.chunk(2, dim=-1)
    return gate_RH.contiguous(), up_RH


def compute(
    x_TD: Tensor, weight_TK: Tensor, place_TK: Tensor, ends_E: Tensor, rows: int, gate_up_EDH: Tensor, down_EHD: Tensor
) -> tuple[Tensor, Tensor]:
    """(sum over a token's K experts of weight * SwiGLU expert (T, D), gate and up activations (R, 2H)).

    `place_TK` is the expert row of each choice, of `rows` in all; `ends_E` as in `grouped_product`.
    """
    token_R, weight_R1 = _rows(weight_TK, place_TK, rows)
    gate_up_RH = grouped_product(x_TD.index_select(0, token_R), gate_up_EDH, ends_E)
    gate_RH, up_RH = _halves(gate_up_RH)
    y_RD = grouped_product(F.silu(gate_RH).mul_(up_RH).mul_(weight_R1), down_EHD, ends_E)
    return F.embedding_bag(place_TK, y_RD, mode="sum"), gate_up_RH


experts_forward = torch.library.custom_op("glassbox::experts", compute, mutates_args=())


@experts_forward.register_fake
def _(x_TD: Tensor, weight: Tensor, place: Tensor, ends: Tensor, rows: int, gate_up_EDH: Tensor, down: Tensor) -> Any:
    return torch.empty_like(x_TD), x_TD.new_empty(rows, gate_up_EDH.shape[-1])


@torch.library.custom_op("glassbox::experts_backward", mutates_args=())
def experts_backward(
    grad_TD: Tensor,
    x_TD: Tensor,
    weight_TK: Tensor,
    place_TK: Tensor,
    ends_E: Tensor,
    gate_up_RH: Tensor,
    gate_up_EDH: Tensor,
    down_EHD: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `compute` by tokens (T, D), weights (T, K), gate_up (E, D, 2H) and down (E, H, D)."""
    token_R, weight_R1 = _rows(weight_TK, place_TK, gate_up_RH.shape[0])
    gate_RH, up_RH = _halves(gate_up_RH)
    grad_RD = grad_TD.index_select(0, token_R)
    silu_RH = F.silu(gate_RH)
    inner_RH = silu_RH * up_RH
    grad_inner_RH = grouped_product(grad_RD, down_EHD.transpose(-2, -1), ends_E)
    grad_weight_R = torch.linalg.vecdot(grad_inner_RH, inner_RH)
    grad_down = grouped_weight_gradient(inner_RH.mul_(weight_R1), grad_RD, ends_E)
    del grad_RD, inner_RH
    grad_inner_RH.mul_(weight_R1)
    grad_gate_up_RH = torch.empty_like(gate_up_RH)
    grad_gate_RH, grad_up_RH = grad_gate_up_RH.chunk(2, dim=-1)
    torch.mul(grad_inner_RH, silu_RH, out=grad_up_RH)
    grad_gate_RH.copy_(torch.ops.aten.silu_backward(grad_inner_RH.mul_(up_RH), gate_RH))
    del grad_inner_RH, silu_RH
    grad_gate_up = grouped_weight_gradient(x_TD.index_select(0, token_R), grad_gate_up_RH, ends_E)
    grad_x_RD = grouped_product(grad_gate_up_RH, gate_up_EDH.transpose(-2, -1), ends_E)
    grad_x_TD = F.embedding_bag(place_TK, grad_x_RD, mode="sum")
    return grad_x_TD, grad_weight_R[place_TK], grad_gate_up, grad_down


@experts_backward.register_fake
def _(*inputs: Tensor) -> tuple[Tensor, ...]:
    _, x_TD, weight_TK, _, _, _, gate_up_EDH, down_EHD = inputs
    return tuple(like.new_empty(like.shape) for like in (x_TD, weight_TK, gate_up_EDH, down_EHD))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_TD, weight_TK, place_TK, ends_E, _, gate_up_EDH, down_EHD = inputs
    ctx.save_for_backward(x_TD, weight_TK, place_TK, ends_E, output[1], gate_up_EDH, down_EHD)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_TD: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    grad_x, grad_weight, grad_gate_up, grad_down = experts_backward(grad_TD.contiguous(), *ctx.saved_tensors)
    return grad_x, grad_weight, None, None, None, grad_gate_up, grad_down


experts_forward.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.glassbox.experts)
def _forward_flops(x: Any, weight: Any, place: Any, ends: Any, rows: int, gate_up: Any, down: Any, **_: Any) -> int:
    return 2 * place[0] * place[1] * (gate_up[1] * gate_up[2] + down[1] * down[2])


@register_flop_formula(torch.ops.glassbox.experts_backward)
def _backward_flops(
    grad: Any, x: Any, weight: Any, place: Any, ends: Any, saved: Any, gate_up: Any, down: Any, **_: Any
) -> int:
    return 4 * place[0] * place[1] * (gate_up[1] * gate_up[2] + down[1] * down[2])


def places(expert_TK: Tensor, experts: int, align: bool) -> tuple[Tensor, Tensor, int]:
    """(expert row of each choice (T, K), int32 end of each expert's rows (E,), rows in all).

    With `align` an expert's rows start at a multiple of `ALIGN`, and the last expert takes the slack so that the number
    of rows never varies: oneDNN compiles a bf16 kernel for every number of rows it has not met, which made the product
    2.4 times as slow (4,096 rows of 128 by 384, 8 experts: 3.3 ms against 1.3).
    """
    sorted_R, order_R = expert_TK.flatten().sort(stable=True)
    R = sorted_R.shape[0]
    numbers_E = torch.arange(experts, device=sorted_R.device)
    last_E = torch.searchsorted(sorted_R, numbers_E, right=True)
    slot_R = torch.arange(R, device=sorted_R.device)
    rows, end_E = R, last_E
    if align:
        first_E = torch.cat([last_E.new_zeros(1), last_E[:-1]])
        rows = -(-(R + experts * (ALIGN - 1)) // ALIGN) * ALIGN
        end_E = ((last_E - first_E + ALIGN - 1) // ALIGN * ALIGN).cumsum(0)
        start_E = torch.cat([end_E.new_zeros(1), end_E[:-1]])
        slot_R = slot_R + (start_E - first_E)[sorted_R]
        end_E[-1] = rows
    place_TK = torch.empty_like(order_R).scatter_(0, order_R, slot_R).view_as(expert_TK)
    return place_TK, end_E.int(), rows


@dataclass(frozen=True)
class Routing:
    """A layer's choice of experts for B rows of S tokens."""

    logit_BSE: Tensor
    score_BSE: Tensor
    """Softmax or sigmoid of the logits, fp32."""
    chosen: tuple[Tensor, Tensor]
    """Expert and token (of all B * S) of every choice, both (R,)."""


register_dataclass(Routing)  # FSDP looks for tensors in what a module returns


class Router(nn.Module):
    """x (B, S, D) -> logits and scores (B, S, E), in fp32; `choose` takes each token's K experts from the scores."""

    bias_E: Tensor | None
    """Steers the choice against the load, without a gradient; it never enters the weights (arXiv:2408.15664)."""

    def __init__(self, dim: int, experts: Experts):
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts.count, dim))
        self.register_buffer("bias_E", torch.empty(experts.count, dtype=torch.float32) if experts.score_bias else None)

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        logit_BSE = F.linear(x_BSD.float(), self.weight.float())
        return logit_BSE, logit_BSE.softmax(-1) if self.experts.score == "softmax" else logit_BSE.sigmoid()

    def choose(self, score_TE: Tensor) -> tuple[Tensor, Tensor]:
        """(weights, experts) of each token, both (T, K); ties go the way of `torch.topk`."""
        K = self.experts.top_k
        if self.bias_E is None:
            weight_TK, expert_TK = score_TE.topk(K, dim=-1)
        else:
            expert_TK = (score_TE.detach() + self.bias_E).topk(K, dim=-1).indices
            weight_TK = score_TE.gather(-1, expert_TK)
        if self.experts.normalise:
            weight_TK = weight_TK / (weight_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return weight_TK * self.experts.scale if self.experts.scale != 1 else weight_TK, expert_TK

    @torch.no_grad()
    def move_bias(self, load_E: Tensor, rate: float) -> None:
        """b += rate * sign(mean load - load), with the loads of a whole step: balance without an auxiliary loss
        (arXiv:2408.15664, algorithm 1). A router without a bias is left alone."""
        if self.bias_E is not None:
            load_E = load_E.to(self.bias_E)
            self.bias_E += rate * (load_E.mean() - load_E).sign()


class MixtureOfExperts(nn.Module):
    """x (B, S, D) -> (y (B, S, D), Routing): the weighted sum of each token's SwiGLU experts, and the shared ones."""

    def __init__(self, network: Network):
        super().__init__()
        assert network.experts is not None
        experts = network.experts
        self.experts = experts
        self.router = Router(network.dim, experts)
        self.gate_up_EDH = nn.Parameter(torch.empty(experts.count, network.dim, 2 * experts.hidden))
        self.down_EHD = nn.Parameter(torch.empty(experts.count, experts.hidden, network.dim))
        self.shared = FeedForward(network.dim, experts.shared * experts.hidden) if experts.shared else None
        self.dispatch = self.compute_local
        """(tokens (T, D), their weights (T, K), experts (T, K)) -> (T, D): here, or where the experts are."""

    def forward(self, x_BSD: Tensor, real_BS: Tensor | None = None) -> tuple[Tensor, Routing]:
        """`real_BS` is False where a token is padding (None: nowhere), which experts that choose leave alone."""
        logit_BSE, score_BSE = self.router(x_BSD)
        x_TD, score_TE = x_BSD.flatten(0, 1), score_BSE.flatten(0, 1)
        if self.experts.choice == "token":
            weight_TK, expert_TK = self.router.choose(score_TE)
            y_TD = self.dispatch(x_TD, weight_TK, expert_TK)
            chosen = choices(expert_TK)
        else:
            weight_R, expert_R, token_R = expert_choice(score_BSE, self.experts.top_k, real_BS)
            y_RD = self.dispatch(x_TD.index_select(0, token_R), weight_R[:, None], expert_R[:, None])
            y_TD = torch.zeros_like(x_TD).index_add(0, token_R, y_RD * self.experts.scale)
            chosen = expert_R, token_R
        if self.shared is not None:
            y_TD = y_TD + self.shared(x_TD)
        return y_TD.view_as(x_BSD), Routing(logit_BSE, score_BSE, chosen)

    def compute_local(self, x_TD: Tensor, weight_TK: Tensor, expert_TK: Tensor) -> Tensor:
        """The weighted sum of each token's experts, all of which are here."""
        grad = torch.is_grad_enabled()
        align = grad and x_TD.dtype == torch.bfloat16 and x_TD.device.type == "cpu"
        place_TK, ends_E, rows = places(expert_TK, len(self.gate_up_EDH), align)
        gate_up_EDH, down_EHD = self._weights(x_TD.dtype)
        # decoding calls the function itself: an operator defined in Python costs tens of microseconds a call
        run = experts_forward if grad else compute
        return run(x_TD, weight_TK.to(x_TD.dtype), place_TK, ends_E, rows, gate_up_EDH, down_EHD)[0]

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The experts' matrices in the compute type, their inner width filled with zeros to rows of 16 bytes, which
        the grouped product needs."""
        gate_up_EDH, down_EHD = self.gate_up_EDH.to(dtype), self.down_EHD.to(dtype)
        E, D, H = down_EHD.shape[0], down_EHD.shape[2], down_EHD.shape[1]
        if gap := -H % (16 // dtype.itemsize):
            gate_up_EDH = F.pad(gate_up_EDH.view(E, D, 2, H), (0, gap)).view(E, D, 2 * (H + gap))
            down_EHD = F.pad(down_EHD, (0, 0, 0, gap))
        return gate_up_EDH, down_EHD


def choices(expert_TK: Tensor) -> tuple[Tensor, Tensor]:
    """(experts, tokens) of every choice, both (T * K,), of the experts that tokens chose: `Routing.chosen`."""
    token_TK = torch.arange(len(expert_TK), device=expert_TK.device)[:, None].expand_as(expert_TK)
    return expert_TK.flatten(), token_TK.flatten()


def expert_choice(score_BSE: Tensor, top_k: int, real_BS: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, experts, tokens), each (R,): of the S tokens of a row that are no padding each expert takes the
    top_k * S // E (at least one) with its highest scores (arXiv:2202.09368; OLMoE, section 4.1.4). The choice looks at
    the whole row, whatever documents are packed in it."""
    B, S, E = score_BSE.shape
    device, score_BES = score_BSE.device, score_BSE.transpose(1, 2)
    if real_BS is not None:
        score_BES = score_BES.masked_fill(~real_BS[:, None], -torch.inf)
    weight_BEC, place_BEC = score_BES.topk(max(1, top_k * S // E), dim=-1)
    token_BEC = place_BEC + S * torch.arange(B, device=device)[:, None, None]
    expert_BEC = torch.arange(E, device=device)[None, :, None].expand_as(token_BEC)
    if real_BS is None:
        return weight_BEC.flatten(), expert_BEC.flatten(), token_BEC.flatten()
    length_B11 = real_BS.sum(1)[:, None, None]
    taken_B11 = torch.minimum((top_k * length_B11 // E).clamp(min=1), length_B11)
    taken_BEC = (torch.arange(weight_BEC.shape[-1], device=device) < taken_B11).expand_as(token_BEC)
    return weight_BEC[taken_BEC], expert_BEC[taken_BEC], token_BEC[taken_BEC]


def balance(
    routing: Routing,
    real_BS: Tensor | None,
    experts: Experts,
    total: Callable[[Tensor], Tensor] = lambda statistic: statistic,
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's weighted losses over the micro-batch (scalar) and over each sequence (scalar), and its load (E,).

    Where S is but some columns of the rows, `total` adds a statistic up over all of them; the load is these columns'.

    | loss           | value                                                        | scale                    |
    |----------------|--------------------------------------------------------------|--------------------------|
    | load balancing | E / (T K) * sum_e load_e * mean score_e                      | 1 balanced, E/K at worst |
    | z              | mean over tokens of logsumexp(logits)^2, divided by K        |                          |
    | sequence       | mean over rows of sum_e f_e P_e, P_e = mean score_e,         | 1 when balanced          |
    |                | f_e = E / (K S) * times e is among the best K without bias   |                          |

    Scores are rescaled to sum to 1 over the experts (softmax's do). Gradients flow through them alone. The first two
    are as OLMoE's training code scales them, which is K times less than equations 3 and 4 of the paper
    (arXiv:2409.02060), the third is DeepSeek-V3's (arXiv:2412.19437, section 2.1.2). Tokens outside `real_BS` (None:
    all are in) count in nothing.
    """
    B, S, E = routing.score_BSE.shape
    K = experts.top_k
    kept_BS = routing.score_BSE.new_ones(B, S) if real_BS is None else real_BS.to(routing.score_BSE.dtype)
    tokens_B = total(kept_BS.sum(1))
    expert_R, token_R = routing.chosen
    kept_R = kept_BS.flatten().index_select(0, token_R)
    load_E = kept_BS.new_zeros(E).scatter_add_(0, expert_R, kept_R)
    score_BSE = routing.score_BSE
    if experts.score == "sigmoid":
        score_BSE = score_BSE / score_BSE.sum(-1, keepdim=True)
    sum_BE = total(torch.einsum("bs,bse->be", kept_BS, score_BSE))
    tokens = tokens_B.sum().clamp_min(1)
    loss = routing.score_BSE.new_zeros(())
    if experts.balance_loss:
        loss = loss + experts.balance_loss * E * (total(load_E) / (tokens * K) * (sum_BE.sum(0) / tokens)).sum()
    if experts.z_loss:
        z_BS = routing.logit_BSE.logsumexp(dim=-1).square()
        loss = loss + experts.z_loss * total((kept_BS * z_BS).sum()) / (tokens * K)
    sequence = loss.new_zeros(())
    if experts.sequence_loss:
        favourite_BSK = score_BSE.detach().topk(K, dim=-1).indices
        times_BE = kept_BS.new_zeros(B, E).scatter_add_(
            1, favourite_BSK.flatten(1), kept_BS.repeat_interleave(K, dim=1)
        )
        per_token_B1 = 1 / tokens_B.clamp_min(1)[:, None]
        times_BE = total(times_BE)
        each_B = (E / K * times_BE * per_token_B1 * (sum_BE * per_token_B1)).sum(-1)
        sequence = experts.sequence_loss * each_B.sum() / (tokens_B > 0).sum().clamp_min(1)
    return loss, sequence, load_E.long()
