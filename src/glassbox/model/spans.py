"""Attention where each query sees one stretch of keys, without a matrix of queries times keys in memory.

A window, a packed document and a text being continued all come down to this: query t sees the keys first..last. Queries
go in chunks, each against only the keys that some query of it sees, as two matrix products around a softmax, forward
and backward. On CPUs this beats PyTorch's fused kernel, which computes what a mask hides and gains nothing from bf16
(docs/performance.md); on CUDA the same stretches become a block mask for `flex_attention`.

Letters: B rows of the batch, N rows of the spans (B, or 1: all alike), T queries, S keys, H query heads, K key/value
heads, G query heads of a key head, C queries of a chunk, R = C * G, X keys of a chunk, d head width.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils.flop_counter import register_flop_formula

from glassbox.recipe.network import Network

CHUNK = 64
"""Queries computed together: of 32, 64 and 128 the fastest, or near it, for rows of 256 to 4,096 tokens."""
KEPT_PER_QUERY = 8
"""Softmax weights are kept for the backward pass if they take at most so many times the memory of the queries, and
computed again otherwise: keeping saves a quarter of the time."""
COST_OF_CHUNK = 40_000
"""Scores that take as long as going through a chunk at all."""
BLOCK = 128
"""Queries and keys of a block on CUDA."""


@dataclass(frozen=True)
class Spans:
    """Which keys each query sees: those from `first_NT` to `last_NT`, both included; at least one."""

    first_NT: Tensor
    last_NT: Tensor


def of_rows(T: int, window: int | None, documents_BT: Tensor | None, device: torch.device) -> Spans:
    """Tokens see earlier ones and themselves within the window and, if given, within their own document: a run of
    tokens with the same number."""
    order_T = torch.arange(T, device=device)
    first_NT = torch.zeros_like(order_T)[None] if window is None else (order_T - (window - 1)).clamp(min=0)[None]
    if documents_BT is not None:
        begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
        begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
        first_NT = torch.maximum(first_NT, torch.where(begins_BT, order_T, 0).cummax(dim=1).values)
    return Spans(first_NT, order_T[None])


def dense_bias(spans: Spans, S: int, dtype: torch.dtype) -> Tensor:
    """(N, 1, T, S): 0 where the query sees the key, -inf elsewhere."""
    key_S = torch.arange(S, device=spans.first_NT.device)
    hidden_NTS = (key_S < spans.first_NT[..., None]) | (key_S > spans.last_NT[..., None])
    return torch.zeros(hidden_NTS.shape, device=key_S.device, dtype=dtype).masked_fill_(hidden_NTS, -torch.inf)[:, None]


def block_mask(spans: Spans, S: int) -> BlockMask:
    """The spans for `flex_attention`, from the ends of each block: nothing of the size T x S is made."""
    first_NT, last_NT = spans.first_NT, spans.last_NT
    T, device = first_NT.shape[-1], first_NT.device
    low, high = _ends(first_NT, BLOCK), _ends(last_NT, BLOCK)
    left_NQ1, right_NQ1 = low[0][..., None], high[1][..., None]  # seen by some query of the block
    inner_left_NQ1, inner_right_NQ1 = low[1][..., None], high[0][..., None]  # seen by all
    start_X = torch.arange(-(-S // BLOCK), device=device) * BLOCK
    some_NQX = (start_X + BLOCK > left_NQ1) & (start_X <= right_NQ1)
    whole_NQX = (start_X >= inner_left_NQ1) & (start_X + BLOCK - 1 <= inner_right_NQ1)
    # a block that reaches over the end of the queries or keys is never whole
    whole_NQX &= (start_X + BLOCK <= S) & (torch.arange(whole_NQX.shape[1], device=device)[:, None] < T // BLOCK)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = row if first_NT.shape[0] > 1 else row * 0
        first, last = first_NT[row, query], last_NT[row if last_NT.shape[0] > 1 else row * 0, query]
        return (first <= key) & (key <= last)

    return BlockMask.from_kv_blocks(
        *_listed(some_NQX & ~whole_NQX),
        *_listed(whole_NQX),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(T, S),
    )


def _listed(chosen_NQX: Tensor) -> tuple[Tensor, Tensor]:
    """(number of chosen key blocks (N, 1, Q), their indices first (N, 1, Q, X)), as int32."""
    order_NQX = chosen_NQX.int().argsort(dim=-1, descending=True, stable=True)
    return chosen_NQX.sum(-1).int()[:, None], order_NQX.int()[:, None].contiguous()


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def attend_by_blocks(q_BTHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, mask: BlockMask) -> Tensor:
    """Attention on CUDA -> (B, T, H, d). On a CPU it runs forward only and slowly, for tests."""
    eager = q_BTHd.device.type == "cuda" and not torch.compiler.is_compiling()  # a compiled block takes it in itself
    flex: Any = _compiled_flex() if eager else flex_attention
    heads_first = (x.transpose(1, 2) for x in (q_BTHd, k_BSKd, v_BSKd))
    return flex(*heads_first, block_mask=mask, enable_gqa=True).transpose(1, 2)


def _ends(index_NT: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(least, greatest) of each stretch of `size` queries, (N, stretches); the last one may be shorter."""
    T = index_NT.shape[-1]
    padded = index_NT[:, torch.arange(-(-T // size) * size, device=index_NT.device).clamp(max=T - 1)]
    return padded.view(len(index_NT), -1, size).aminmax(dim=-1)


def plan(spans: Spans, heads: int) -> Tensor:
    """The chunks of queries and their keys, (chunks, 7): row or -1 for all, first query, query after the last, first
    key, key after the last, the key before which some query sees not all, the key from which on some sees not all.

    Rows go one by one where their documents begin at such different places that this saves more than it costs.
    """
    low, left = _ends(spans.first_NT, CHUNK)
    right, high = (end + 1 for end in _ends(spans.last_NT, CHUNK))
    shape = torch.broadcast_shapes(low.shape, high.shape)
    low, left, right, high = (end.expand(shape) for end in (low, left, right, high))
    saved = (high.amax(0) - low.amin(0) - (high - low)).sum() * CHUNK * heads
    if saved <= COST_OF_CHUNK * (shape[0] - 1) * shape[1]:
        row = torch.full((1, 1), -1)
        low, left, right, high = low.amin(0)[None], left.amax(0)[None], right.amin(0)[None], high.amax(0)[None]
    else:
        row = torch.arange(shape[0])[:, None]
    start = torch.arange(shape[1])[None] * CHUNK
    stop = (start + CHUNK).clamp(max=spans.last_NT.shape[-1])
    return torch.stack([x.expand(low.shape) for x in (row, start, stop, low, high, left, right)], dim=-1).flatten(0, 1)


@dataclass(frozen=True)
class Chunks:
    """What `attend` needs of the spans, alike in every layer."""

    spans: Spans
    plan: Tensor
    kept: int
    """Softmax weights to keep for each query of each head; 0: none."""


def chunked(spans: Spans, network: Network, keep: bool = False) -> Chunks:
    """Prepare attention in chunks. Softmax weights are kept only if asked for; queries and keys then stand at the same
    places in all rows."""
    T, window = spans.last_NT.shape[-1], network.attention.window
    most = T if window is None else min(T, window + CHUNK - 1)
    kept = most if keep and most <= KEPT_PER_QUERY * network.head_dim else 0
    return Chunks(spans, plan(spans, network.attention.heads), kept)


def attend_in_chunks(q_BTHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, chunks: Chunks) -> Tensor:
    """Attention on a CPU -> (B, T, H, d)."""
    spans = chunks.spans
    return attend(q_BTHd, k_BSKd, v_BSKd, spans.first_NT, spans.last_NT, chunks.plan, chunks.kept)[0]


@torch.library.custom_op("glassbox::attend", mutates_args=())
def attend(
    q_BTHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, first_NT: Tensor, last_NT: Tensor, chunks: Tensor, kept: int
) -> tuple[Tensor, Tensor]:
    """(softmax attention (B, T, H, d), room for `kept` softmax weights of each query of each head, filled from the
    front; empty: none kept). `chunks` is the `plan` of the spans; softmax of bf16 computes in fp32 inside."""
    q_BTKGd, k_BKSd, v_BKSd = _grouped(q_BTHd, k_BSKd), _heads_first(k_BSKd).mul_(_scale(q_BTHd)), _heads_first(v_BSKd)
    y_BTKGd, weights = q_BTHd.new_empty(q_BTKGd.shape), q_BTHd.new_empty(q_BTHd[..., 0].numel() * kept)
    filled = 0
    for rows, queries, keys, hide in _chunks(first_NT, last_NT, chunks):
        score_BKRX = hide(_packed(q_BTKGd[rows, queries]) @ k_BKSd[rows, :, keys].transpose(-1, -2))
        room = weights[filled : filled + score_BKRX.numel()].view(score_BKRX.shape) if kept else score_BKRX
        torch.softmax(score_BKRX, dim=-1, out=room)
        _unpack(room @ v_BKSd[rows, :, keys], into=y_BTKGd[rows, queries])
        filled += room.numel()
    return y_BTKGd.view(q_BTHd.shape), weights


@attend.register_fake
def _(
    q_BTHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, first_NT: Tensor, last_NT: Tensor, chunks: Tensor, kept: int
) -> tuple[Tensor, Tensor]:
    return q_BTHd.new_empty(q_BTHd.shape), q_BTHd.new_empty(q_BTHd[..., 0].numel() * kept)


@torch.library.custom_op("glassbox::attend_backward", mutates_args=())
def attend_backward(
    grad_BTHd: Tensor,
    q_BTHd: Tensor,
    k_BSKd: Tensor,
    v_BSKd: Tensor,
    weights: Tensor,
    first_NT: Tensor,
    last_NT: Tensor,
    chunks: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend` in queries, keys and values, from the weights it kept or from new ones."""
    q_BTKGd, k_BKSd, v_BKSd = _grouped(q_BTHd, k_BSKd), _heads_first(k_BSKd).mul_(_scale(q_BTHd)), _heads_first(v_BSKd)
    dy_BTKGd, dq_BTKGd = _grouped(grad_BTHd, k_BSKd), q_BTHd.new_empty(q_BTKGd.shape)
    # sums over chunks, so in fp32
    dk_BKSd, dv_BKSd = (torch.zeros(k_BKSd.shape, dtype=torch.float32, device=q_BTHd.device) for _ in range(2))
    filled = 0
    for rows, queries, keys, hide in _chunks(first_NT, last_NT, chunks):
        q_BKRd, dy_BKRd = _packed(q_BTKGd[rows, queries]), _packed(dy_BTKGd[rows, queries])
        k_BKXd, v_BKXd = k_BKSd[rows, :, keys], v_BKSd[rows, :, keys]
        if len(weights):
            shape = (*q_BKRd.shape[:3], k_BKXd.shape[2])
            weight_BKRX = weights[filled : filled + math.prod(shape)].view(shape)
            filled += weight_BKRX.numel()
        else:
            weight_BKRX = hide(q_BKRd @ k_BKXd.transpose(-1, -2))
            torch.softmax(weight_BKRX, dim=-1, out=weight_BKRX)
        dv_BKSd[rows, :, keys] += weight_BKRX.transpose(-1, -2) @ dy_BKRd
        dweight_BKRX = dy_BKRd @ v_BKXd.transpose(-1, -2)
        dscore_BKRX = torch.ops.aten._softmax_backward_data(dweight_BKRX, weight_BKRX, -1, weight_BKRX.dtype)
        _unpack(dscore_BKRX @ k_BKXd, into=dq_BTKGd[rows, queries])
        dk_BKSd[rows, :, keys] += dscore_BKRX.transpose(-1, -2) @ q_BKRd
    dk_BSKd, dv_BSKd = k_BSKd.new_empty(k_BSKd.shape), v_BSKd.new_empty(v_BSKd.shape)
    torch.mul(dk_BKSd.transpose(1, 2), _scale(q_BTHd), out=dk_BSKd)
    return dq_BTKGd.view(q_BTHd.shape), dk_BSKd, dv_BSKd.copy_(dv_BKSd.transpose(1, 2))


@attend_backward.register_fake
def _(grad_BTHd: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(like.shape) for like in inputs[:3])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q_BTHd, k_BSKd, v_BSKd, first_NT, last_NT, chunks, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # none of the kept weights' size
    ctx.save_for_backward(q_BTHd, k_BSKd, v_BSKd, output[1], first_NT, last_NT, chunks)


def _backward(ctx: Any, grad_BTHd: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*attend_backward(grad_BTHd, *ctx.saved_tensors), None, None, None, None)


attend.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.glassbox.attend, get_raw=True)
def _attend_flops(q_BTHd: Tensor, *inputs: Any, **_: Any) -> int:
    """Two products over the scores that are computed."""
    chunks = inputs[4]
    return 2 * 2 * q_BTHd.shape[-1] * _computed_scores(q_BTHd, chunks)


@register_flop_formula(torch.ops.glassbox.attend_backward, get_raw=True)
def _attend_backward_flops(grad_BTHd: Tensor, q_BTHd: Tensor, *inputs: Any, **_: Any) -> int:
    """Four products, and one more where the weights are computed again."""
    weights, chunks = inputs[2], inputs[5]
    return (4 if len(weights) else 5) * 2 * q_BTHd.shape[-1] * _computed_scores(q_BTHd, chunks)


def _computed_scores(q_BTHd: Tensor, chunks: Tensor) -> int:
    rows = torch.where(chunks[:, 0] < 0, q_BTHd.shape[0], 1)
    return q_BTHd.shape[2] * int((rows * (chunks[:, 2] - chunks[:, 1]) * (chunks[:, 4] - chunks[:, 3])).sum())


def _scale(q_BTHd: Tensor) -> float:
    return float(q_BTHd.shape[-1] ** -0.5)


def _grouped(q_BTHd: Tensor, k_BSKd: Tensor) -> Tensor:
    """(B, T, K, G, d): the query heads by key head."""
    return q_BTHd.unflatten(2, (k_BSKd.shape[2], -1))


def _heads_first(x_BSKd: Tensor) -> Tensor:
    """A copy (B, K, S, d) in one stretch of memory."""
    return x_BSKd.transpose(1, 2).clone(memory_format=torch.contiguous_format)


def _packed(x_BCKGd: Tensor) -> Tensor:
    """(B, K, R, d): the queries of a chunk and a key head's group as the rows of one product."""
    return x_BCKGd.transpose(1, 2).flatten(2, 3)


def _unpack(x_BKRd: Tensor, into: Tensor) -> None:
    """Write what `_packed` packed back into its (B, C, K, G, d)."""
    B, C, K, G, d = into.shape
    into.copy_(x_BKRd.view(B, K, C, G, d).transpose(1, 2))


def _chunks(
    first_NT: Tensor, last_NT: Tensor, chunks: Tensor
) -> Iterator[tuple[slice, slice, slice, Callable[[Tensor], Tensor]]]:
    """For each chunk: rows, queries, keys, and what hides keys in its scores, in place."""
    for row, start, stop, low, high, left, right in chunks.tolist():
        rows = slice(None) if row < 0 else slice(row, row + 1)
        first_NC1, last_NC1 = (
            x[rows if len(x) > 1 else slice(None), start:stop, None] - low for x in (first_NT, last_NT)
        )
        parts = [(0, left - low), (right - low, high - low)] if left <= right else [(0, high - low)]
        hide = partial(_hide, first_NC1, last_NC1, [(begin, end) for begin, end in parts if begin < end])
        yield rows, slice(start, stop), slice(low, high), hide


def _hide(first_NC1: Tensor, last_NC1: Tensor, parts: list[tuple[int, int]], score_BKRX: Tensor) -> Tensor:
    """Put -inf, in these columns, where the query does not see the key."""
    score_BKCGX = score_BKRX.unflatten(2, (first_NC1.shape[1], -1))
    for begin, end in parts:
        key_X = torch.arange(begin, end)
        hidden_NCX = (key_X < first_NC1) | (key_X > last_NC1)
        bias_NCX = score_BKRX.new_zeros(hidden_NCX.shape).masked_fill_(hidden_NCX, -torch.inf)
        score_BKCGX[..., begin:end] += bias_NCX[:, None, :, None]
    return score_BKRX
