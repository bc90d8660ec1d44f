"""Grouped-query attention with rotary positions, sliding window and packed documents.

Letters: B batch, T query tokens, S key tokens, D model width, H query heads, K key/value heads, d head width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from glassbox.model import spans
from glassbox.model.cache import Cache, Entry
from glassbox.model.layers import Linear, RMSNorm
from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Shared:
    """What every layer of one forward pass needs alike, computed once."""

    cos: Tensor
    """(B or 1, T, 1, d/2) in the compute type."""
    sin: Tensor
    """As `cos`."""
    seen: Tensor | spans.Chunks | BlockMask | None
    """Which keys queries see, in the form that suits the device and the shapes. None: plain causal attention. A tensor
    (B or 1, 1, T, S): 0 where the query sees the key, -inf elsewhere."""
    entry: Entry | None
    """Where the new tokens go in the cache; None: there is none."""
    real_BT: Tensor | None
    """Whether a token is no padding; None: all are."""


def share(
    network: Network,
    ids_BT: Tensor,
    positions_BT: Tensor | None,
    documents_BT: Tensor | None,
    cache: Cache | None,
    dtype: torch.dtype,
) -> Shared:
    """Rotary tables and mask for a forward pass over `ids_BT`; see `Transformer.forward` for the arguments."""
    T, window, device = ids_BT.shape[1], network.attention.window, ids_BT.device
    places_BT = positions_BT if positions_BT is not None else torch.arange(T, device=device)[None]
    cos, sin = (table.to(dtype) for table in rotary(places_BT, network.head_dim, network.attention.rope_base))
    entry = None if cache is None else cache.enter(positions_BT, T)
    seen: Tensor | spans.Chunks | BlockMask | None
    if entry is not None and entry.keys_BS is not None:
        seen = _seen_in_cache(places_BT, entry.keys_BS, entry.ordered, network, dtype)
    elif documents_BT is None and (window or T) >= T and fused(network, T, dtype, device):
        seen = None
    else:
        row_spans = spans.of_rows(T, window, documents_BT, device)
        if device.type == "cpu":
            seen = spans.chunked(row_spans, network, keep=torch.is_grad_enabled())
        elif device.type == "cuda":
            seen = spans.block_mask(row_spans, T)
        else:
            seen = spans.dense_bias(row_spans, T, dtype)
    return Shared(cos, sin, seen, entry, None if documents_BT is None else documents_BT >= 0)


def fused(network: Network, T: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether plain causal attention goes to PyTorch's fused kernel. On CPUs it gains nothing from bf16 and nothing
    from shared key heads, where `spans.attend` is faster for rows of some length; see docs/performance.md."""
    shares = network.attention.kv_heads < network.attention.heads
    return device.type != "cpu" or T == 1 or (dtype != torch.bfloat16 and not (shares and 256 <= T <= 1024))


def _seen_in_cache(
    places_BT: Tensor, keys_BS: Tensor, ordered: bool, network: Network, dtype: torch.dtype
) -> Tensor | spans.Chunks:
    """What tokens at these positions see of keys at those (see `cache.Entry`); padding sees something, as with nothing
    to see it would become NaN."""
    T, window = places_BT.shape[1], network.attention.window
    if ordered and T > spans.CHUNK and places_BT.device.type == "cpu":
        last_BT = places_BT.where(places_BT >= 0, places_BT.amax(dim=1, keepdim=True).clamp(min=0))
        first_BT = torch.zeros_like(last_BT) if window is None else (last_BT - (window - 1)).clamp(min=0)
        key_spans = spans.Spans(first_BT - keys_BS[:, :1], last_BT - keys_BS[:, :1])
        return spans.chunked(key_spans, network)
    distance_BTS = places_BT[:, :, None] - keys_BS[:, None, :]
    hidden_BTS = (distance_BTS < 0) | (keys_BS < 0)[:, None]
    if window is not None:
        hidden_BTS |= distance_BTS >= window
    if T > 1:
        hidden_BTS &= (places_BT >= 0)[:, :, None]
    # a float bias is made once here; a boolean mask would be turned into one again in every layer
    bias = torch.zeros(hidden_BTS.shape, device=keys_BS.device, dtype=dtype).masked_fill_(hidden_BTS, -torch.inf)
    return bias[:, None]


def rotary(positions_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, T, 1, d/2) in fp32 of position * base^(-2i/d) (arXiv:2104.09864)."""
    exponent = torch.arange(0, head_dim, 2, device=positions_BT.device, dtype=torch.float32) / head_dim
    angle = positions_BT[:, :, None, None].float() * base**-exponent
    return angle.cos(), angle.sin()


def rotate(x_BTHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + d/2]) by its angle: the half-split layout of Hugging Face models."""
    a, b = x_BTHd.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """x_BTD -> (B, T, D). Queries, keys and values come from one product, rows in that order."""

    def __init__(self, network: Network, layer: int):
        super().__init__()
        settings = network.attention
        self.heads, self.kv_heads, self.head_dim = settings.heads, settings.kv_heads, network.head_dim
        self.layer, self.clip = layer, settings.clip_qkv
        self.attend: Callable[[Tensor, Tensor, Tensor, Any], Tensor] = attend
        self.qkv = Linear(network.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=settings.bias)
        self.q_norm = self.k_norm = None
        if settings.qk_norm is not None:
            heads, kv_heads = (self.heads, self.kv_heads) if settings.qk_norm == "whole" else (1, 1)
            self.q_norm = RMSNorm(heads * self.head_dim, network.norm_eps)
            self.k_norm = RMSNorm(kv_heads * self.head_dim, network.norm_eps)
        self.out = Linear(self.heads * self.head_dim, network.dim)

    def forward(self, x_BTD: Tensor, shared: Shared, cache: Cache | None) -> Tensor:
        q_BTHd, k_BTKd, v_BTKd = self._project(x_BTD, shared)
        if cache is not None:
            assert shared.entry is not None
            k_BTKd, v_BTKd = cache.extend(self.layer, k_BTKd, v_BTKd, shared.entry)
        y_BTHd = self.attend(q_BTHd, k_BTKd, v_BTKd, shared.seen)
        return self.out(y_BTHd.flatten(2))

    def _project(self, x_BTD: Tensor, shared: Shared) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, d), keys and values (B, T, K, d): product, norm, clip, rotation, in this order."""
        qkv = self.qkv(x_BTD).unflatten(-1, (-1, self.head_dim))
        qk, v_BTKd = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHd, k_BTKd = qk.split((self.heads, self.kv_heads), dim=2)
            qk = torch.cat((_normed(q_BTHd, self.q_norm), _normed(k_BTKd, self.k_norm)), dim=2)
        if self.clip is not None:
            qk, v_BTKd = qk.clamp(-self.clip, self.clip), v_BTKd.clamp(-self.clip, self.clip)
        q_BTHd, k_BTKd = rotate(qk, shared.cos, shared.sin).split((self.heads, self.kv_heads), dim=2)
        return q_BTHd, k_BTKd, v_BTKd


def attend(q_BTHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, seen: Tensor | spans.Chunks | BlockMask | None) -> Tensor:
    """Softmax attention of the queries over the keys -> (B, T, H, d)."""
    if isinstance(seen, spans.Chunks):
        return spans.attend_in_chunks(q_BTHd, k_BSKd, v_BSKd, seen)
    if isinstance(seen, BlockMask):
        return spans.attend_by_blocks(q_BTHd, k_BSKd, v_BSKd, seen)
    (B, T, H, d), K = q_BTHd.shape, k_BSKd.shape[2]
    k_BKSd, v_BKSd = k_BSKd.transpose(1, 2), v_BSKd.transpose(1, 2)
    if T == 1 and seen is not None:
        # the query heads of a group stand as query tokens of their key head, so no key is copied
        q_BKGd = q_BTHd.view(B, K, H // K, d)
        return F.scaled_dot_product_attention(q_BKGd, k_BKSd, v_BKSd, attn_mask=seen).reshape(B, 1, H, d)
    q_BHTd = q_BTHd.transpose(1, 2)
    if seen is not None and H > K and seen.device.type == "cuda":
        # with a mask, only attention that holds all scores takes groups there
        k_BKSd, v_BKSd = (x.repeat_interleave(H // K, dim=1) for x in (k_BKSd, v_BKSd))
    y_BHTd = F.scaled_dot_product_attention(
        q_BHTd, k_BKSd, v_BKSd, attn_mask=seen, is_causal=seen is None, enable_gqa=True
    )
    return y_BHTd.transpose(1, 2)


def _normed(x_BTHd: Tensor, norm: RMSNorm) -> Tensor:
    """The norm over as many neighbouring channels as it has gains: one head (dots.llm1) or all of them (OLMoE)."""
    return norm(x_BTHd.flatten(2).unflatten(2, (-1, norm.weight.shape[0])), x_BTHd.dtype).view(x_BTHd.shape)
