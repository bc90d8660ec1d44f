"""Experts divided among processes: tokens travel to the experts they chose and back, none is dropped.

Letters: T tokens of this process, D model width, K experts of a token, R rows received, E experts, e of them here.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd

from glassbox.model.experts import MixtureOfExperts
from glassbox.model.transformer import Transformer
from glassbox.train.parallel.layout import Extent, whole
from glassbox.train.parallel.ranks import Ranks

EXPERT_MATRICES = ("gate_up_EDH", "down_EHD")


@dataclass(frozen=True)
class Routes:
    """Where the rows of an exchange go and come from."""

    order_R: Tensor
    """The choices (token * K + place) sorted by expert."""
    sent: list[int]
    """Rows for each process."""
    received: list[int]
    """Rows from each process."""
    expert_R: Tensor
    """Which of this process's experts each received row chose."""


def divide_experts(model: Transformer, ranks: Ranks) -> dict[str, Extent]:
    """Leave each process of the `expert` group its experts, in place; returns where their matrices lie in the whole."""
    index, count, group = ranks.index("expert"), ranks.sizes["expert"], ranks.group("expert")
    extents: dict[str, Extent] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, MixtureOfExperts):
            continue
        here = module.experts.count // count
        first = index * here
        for name in EXPERT_MATRICES:
            full = getattr(module, name)
            setattr(module, name, nn.Parameter(full.data[first : first + here].clone()))
            extents[f"{prefix}.{name}"] = whole(tuple(full.shape)).pick(0, ((first, first + here),))
        module.dispatch = _dispatch(module, group)
    return extents


def _dispatch(module: MixtureOfExperts, group: Any) -> Any:
    def dispatch(x_TD: Tensor, weight_TK: Tensor, expert_TK: Tensor) -> Tensor:
        routes = routes_of(expert_TK, module.experts.count, group)
        rows_RD = exchange(gathered(x_TD, routes, expert_TK.shape[1]), routes.sent, routes.received, group)
        y_RD = local_experts(module, rows_RD, routes.expert_R)
        back_RD = exchange(y_RD, routes.received, routes.sent, group)
        return combined(back_RD, weight_TK, routes)

    return dispatch


def routes_of(expert_TK: Tensor, experts: int, group: Any) -> Routes:
    """Agree with the group on who sends how many rows to whom."""
    n = dist.get_world_size(group)
    flat_R = expert_TK.flatten()
    order_R = flat_R.argsort(stable=True)
    count_E = torch.bincount(flat_R, minlength=experts)
    theirs_E = torch.empty_like(count_E)
    dist.all_to_all_single(theirs_E, count_E, group=group)
    theirs = theirs_E.view(n, experts // n)
    here_E = torch.arange(experts // n, device=flat_R.device).repeat(n)
    sent, received = torch.stack([count_E.view(n, -1).sum(1), theirs.sum(1)]).tolist()
    return Routes(order_R, sent, received, here_E.repeat_interleave(theirs_E))


def gathered(x_TD: Tensor, routes: Routes, top_k: int) -> Tensor:
    """Each choice's token, sorted by expert, (T * K, D)."""
    return x_TD.index_select(0, routes.order_R.div(top_k, rounding_mode="floor"))


def exchange(rows_RD: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
    """Send each process of the group its rows and take theirs; the gradient travels back."""
    return all_to_all_single_autograd(rows_RD.contiguous(), received, sent, group)


def local_experts(module: MixtureOfExperts, rows_RD: Tensor, expert_R: Tensor) -> Tensor:
    """This process's experts on the rows that came, (R, D)."""
    if not len(rows_RD):  # still part of the graph, so that every expert has a gradient
        return rows_RD + 0 * (module.gate_up_EDH.sum() + module.down_EHD.sum()).to(rows_RD.dtype)
    return module.compute_local(rows_RD, rows_RD.new_ones(len(rows_RD), 1), expert_R[:, None])


def combined(back_RD: Tensor, weight_TK: Tensor, routes: Routes) -> Tensor:
    """The weighted sum of each token's experts, (T, D)."""
    T, K = weight_TK.shape
    place_R = torch.empty_like(routes.order_R).scatter_(0, routes.order_R, torch.arange(T * K, device=back_RD.device))
    each_TKD = back_RD.index_select(0, place_R).view(T, K, -1)
    return (each_TKD * weight_TK.to(back_RD.dtype)[..., None]).sum(1)
