"""Heads and columns divided among processes: tensor and sequence parallelism, and context parallelism.

The residual stream of a row is cut into columns, of which each process holds `model.columns`. Norms, routers, experts,
embedding, head and loss work on those alone. Where tokens have to meet,

- `tensor`: each process gathers the columns of its group, computes its share of the attention heads (of the
  feed-forward's width) for all of them, and the partial sums are added up and handed out by columns again (Megatron-LM,
  arXiv:2104.04473, with the sequence parallelism of arXiv:2205.05198);
- `context`: each process computes queries, keys and values of all heads for its columns, and all-to-all exchanges turn
  columns of all heads into all columns of some heads, and back (DeepSpeed-Ulysses, arXiv:2309.14509).

The fused matrices (queries, keys and values; gate and up) are cut by hand: a process's rows of each do not lie
together, which a DTensor cannot say.

Letters: B rows, T columns of the whole row, D width, H heads, d head width.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd

from glassbox.model.attention import Attention, attend
from glassbox.model.feed_forward import FeedForward
from glassbox.model.transformer import Block, Columns, Transformer
from glassbox.train.parallel.layout import Extent, Ranges, whole
from glassbox.train.parallel.ranks import Ranks

Collective = Callable[[Tensor, Any], Tensor]
"""(tensor, process group) -> what this process has after it."""


def columns_of(ranks: Ranks) -> Columns:
    """The columns that this process computes, and how statistics of them are added up."""
    share = ranks.columns
    if share.count == 1:
        return Columns()
    groups = [ranks.group(dimension) for dimension in ("context", "tensor") if ranks.sizes[dimension] > 1]

    def total(statistic: Tensor) -> Tensor:
        summed = statistic.detach().clone()
        for group in groups:
            dist.all_reduce(summed, group=group)
        return statistic + (summed - statistic.detach())

    return Columns(share.index, share.count, total)


def divide_heads(model: Transformer, ranks: Ranks) -> dict[str, Extent]:
    """Give each process of the `tensor` group its heads and its width of dense feed-forwards, in place; returns where
    the matrices that are cut lie in the whole ones."""
    index, count, group = ranks.index("tensor"), ranks.sizes["tensor"], ranks.group("tensor")
    extents: dict[str, Extent] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Attention):
            d, H, K = module.head_dim, module.heads, module.kv_heads
            rows = _parts([(0, H * d), (H * d, K * d), ((H + K) * d, K * d)], index, count)
            extents[f"{prefix}.qkv.weight"] = _keep(module.qkv, "weight", 0, rows)
            if module.qkv.bias is not None:
                extents[f"{prefix}.qkv.bias"] = _keep(module.qkv, "bias", 0, rows)
            extents[f"{prefix}.out.weight"] = _keep(module.out, "weight", 1, _parts([(0, H * d)], index, count))
            module.heads, module.kv_heads = H // count, K // count
            _meet(module, group)
        elif isinstance(module, Block) and isinstance(module.feed_forward, FeedForward):
            dense, hidden = module.feed_forward, module.feed_forward.down.weight.shape[1]
            name = f"{prefix}.feed_forward"
            rows = _parts([(0, hidden), (hidden, hidden)], index, count)
            extents[f"{name}.gate_up.weight"] = _keep(dense.gate_up, "weight", 0, rows)
            extents[f"{name}.down.weight"] = _keep(dense.down, "weight", 1, _parts([(0, hidden)], index, count))
            _meet(dense, group)
    return extents


def divide_context(model: Transformer, ranks: Ranks) -> None:
    """Let attention exchange columns for heads over the `context` group, in place."""
    index, count, group = ranks.index("context"), ranks.sizes["context"], ranks.group("context")

    def own_angles(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x_BTD, shared, cache = arguments
        cos, sin = (table[:, _slice(table.shape[1], index, count)] for table in (shared.cos, shared.sin))
        return x_BTD, replace(shared, cos=cos, sin=sin), cache

    def attend_to_all(q_BTHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor, seen: Any) -> Tensor:
        q_BTHd, k_BTKd, v_BTKd = (_swap(x, cut=2, join=1, group=group) for x in (q_BTHd, k_BTKd, v_BTKd))
        return _swap(attend(q_BTHd, k_BTKd, v_BTKd, seen), cut=1, join=2, group=group)

    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(own_angles)
            module.attend = attend_to_all


def _parts(pieces: list[tuple[int, int]], index: int, count: int) -> Ranges:
    """The `index`-th of `count` shares of each piece (start, length)."""
    shares = [(start, length // count) for start, length in pieces]
    return tuple((start + index * length, start + (index + 1) * length) for start, length in shares)


def _keep(module: nn.Module, name: str, dimension: int, ranges: Ranges) -> Extent:
    """Cut a parameter down to some of its rows (columns); returns where they lie."""
    full = getattr(module, name)
    kept = torch.cat([full.data.narrow(dimension, start, stop - start) for start, stop in ranges], dim=dimension)
    setattr(module, name, nn.Parameter(kept))
    return whole(tuple(full.shape)).pick(dimension, ranges)


def _meet(module: nn.Module, group: Any) -> None:
    """All columns of the group go in, sums over the group come out by columns."""

    def gather(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_Meeting.apply(arguments[0], _gather, _scatter, group), *arguments[1:])

    def scatter(module: nn.Module, arguments: tuple[Any, ...], partial_BTD: Tensor) -> Tensor:
        return _Meeting.apply(partial_BTD, _scatter, _gather, group)

    module.register_forward_pre_hook(gather)
    module.register_forward_hook(scatter)


def _gather(x_BTD: Tensor, group: Any) -> Tensor:
    """The columns of all processes of the group, one after another."""
    parts = [torch.empty_like(x_BTD, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x_BTD.contiguous(), group=group)
    return torch.cat(parts, dim=1)


def _scatter(x_BTD: Tensor, group: Any) -> Tensor:
    """The sum over the group, of which each process gets its columns."""
    parts = [part.contiguous() for part in x_BTD.chunk(dist.get_world_size(group), dim=1)]
    own = torch.empty_like(parts[0])
    dist.reduce_scatter(own, parts, group=group)
    return own


class _Meeting(torch.autograd.Function):
    """One collective on the way there, its counterpart for the gradient on the way back."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, there: Collective, back: Collective, group: Any) -> Tensor:
        ctx.back, ctx.group = back, group
        return there(x_BTD, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.back(grads[0], ctx.group), None, None, None


def _swap(x: Tensor, cut: int, join: int, group: Any) -> Tensor:
    """Cut a dimension over the group and put another together, by one exchange."""
    n = dist.get_world_size(group)
    parts = torch.stack(x.chunk(n, dim=cut))
    ones = [1] * n
    got = all_to_all_single_autograd(parts.reshape(n, -1), ones, ones, group).view(parts.shape)
    return torch.cat(got.unbind(0), dim=join)


def _slice(length: int, index: int, count: int) -> slice:
    return slice(length * index // count, length * (index + 1) // count) if length > 1 else slice(None)
