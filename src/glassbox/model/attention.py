"""Grouped-query attention with rotary positions, sliding window and packed documents.

Letters: B batch, T query tokens, S key tokens, D model width, H query heads, K key/value heads, d head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    bias: Tensor | None
    """(B or 1, 1, T, S): 0 where the query sees the key, -inf elsewhere; None: plain causal attention."""
    entry: Entry | None
    """Where the new tokens go in the cache; None: there is none."""


def share(
    network: Network,
    ids_BT: Tensor,
    positions_BT: Tensor | None,
    documents_BT: Tensor | None,
    cache: Cache | None,
    dtype: torch.dtype,
) -> Shared:
    """Rotary tables and mask for a forward pass over `ids_BT`; see `Transformer.forward` for the arguments."""
    T, device = ids_BT.shape[1], ids_BT.device
    places_BT = positions_BT if positions_BT is not None else torch.arange(T, device=device)[None]
    cos, sin = (table.to(dtype) for table in rotary(places_BT, network.head_dim, network.attention.rope_base))
    entry = None if cache is None else cache.enter(positions_BT, T)
    if entry is not None and entry.keys_BS is not None:
        seen_BTS = visible(places_BT, entry.keys_BS, network) & (entry.keys_BS >= 0)[:, None]
        if entry.padded:  # nothing to see would give NaN
            seen_BTS = seen_BTS | (places_BT < 0)[:, :, None]
    elif documents_BT is not None or (network.attention.window or T) < T or by_products(T, dtype, device):
        order_1T = torch.arange(T, device=device)[None]
        seen_BTS = visible(order_1T, order_1T, network)
        if documents_BT is not None:
            seen_BTS = seen_BTS & (documents_BT[:, :, None] == documents_BT[:, None, :])
    else:
        return Shared(cos, sin, None, entry)
    # a float bias is made once here; a boolean mask would be turned into one again in every layer
    bias = torch.zeros(seen_BTS.shape, device=device, dtype=dtype).masked_fill_(~seen_BTS, float("-inf"))
    return Shared(cos, sin, bias[:, None], entry)


def by_products(T: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether attention runs as two matrix products around a softmax, holding all scores of a layer at once.

    PyTorch's fused kernel gains nothing from bf16 on CPUs: forward and backward of 16 rows of 256 tokens take it 43 ms,
    the products 15 ms.
    """
    return dtype == torch.bfloat16 and device.type == "cpu" and 1 < T <= 1024


def rotary(positions_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, T, 1, d/2) in fp32 of position * base^(-2i/d) (arXiv:2104.09864)."""
    exponent = torch.arange(0, head_dim, 2, device=positions_BT.device, dtype=torch.float32) / head_dim
    angle = positions_BT[:, :, None, None].float() * base**-exponent
    return angle.cos(), angle.sin()


def rotate(x_BTHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + d/2]) by its angle: the half-split layout of Hugging Face models."""
    a, b = x_BTHd.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def visible(query_BT: Tensor, key_BS: Tensor, network: Network) -> Tensor:
    """(B, T, S): whether the key's position is at or before the query's, within the window if there is one."""
    distance_BTS = query_BT[:, :, None] - key_BS[:, None, :]
    seen = distance_BTS >= 0
    return seen if network.attention.window is None else seen & (distance_BTS < network.attention.window)


class Attention(nn.Module):
    """x_BTD -> (B, T, D). Queries, keys and values come from one product, rows in that order."""

    def __init__(self, network: Network, layer: int):
        super().__init__()
        settings = network.attention
        self.heads, self.kv_heads, self.head_dim = settings.heads, settings.kv_heads, network.head_dim
        self.layer, self.clip = layer, settings.clip_qkv
        self.qkv = Linear(network.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=settings.bias)
        self.q_norm = self.k_norm = None
        if settings.qk_norm is not None:
            heads, kv_heads = (self.heads, self.kv_heads) if settings.qk_norm == "whole" else (1, 1)
            self.q_norm = RMSNorm(heads * self.head_dim, network.norm_eps)
            self.k_norm = RMSNorm(kv_heads * self.head_dim, network.norm_eps)
        self.out = Linear(self.heads * self.head_dim, network.dim)

    def forward(self, x_BTD: Tensor, shared: Shared, cache: Cache | None) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTHd, k_BTKd, v_BTKd = self._project(x_BTD, shared)
        if cache is not None:
            assert shared.entry is not None
            k_BTKd, v_BTKd = cache.extend(self.layer, k_BTKd, v_BTKd, shared.entry)
        y_BTHd = self._attend(q_BTHd, k_BTKd.transpose(1, 2), v_BTKd.transpose(1, 2), shared.bias)
        return self.out(y_BTHd.reshape(B, T, -1))

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

    def _attend(self, q_BTHd: Tensor, k_BKSd: Tensor, v_BKSd: Tensor, bias: Tensor | None) -> Tensor:
        """Softmax attention of the queries over the keys -> (B, T, H, d)."""
        B, T, H, d = q_BTHd.shape
        if bias is not None and by_products(T, q_BTHd.dtype, q_BTHd.device):
            return self._by_products(q_BTHd, k_BKSd, v_BKSd, bias)
        if T == 1 and bias is not None:
            # the query heads of a group stand as query tokens of their key head, so no key is copied
            q_BKGd = q_BTHd.view(B, self.kv_heads, H // self.kv_heads, d)
            return F.scaled_dot_product_attention(q_BKGd, k_BKSd, v_BKSd, attn_mask=bias).reshape(B, 1, H, d)
        y_BHTd = F.scaled_dot_product_attention(
            q_BTHd.transpose(1, 2), k_BKSd, v_BKSd, attn_mask=bias, is_causal=bias is None, enable_gqa=True
        )
        return y_BHTd.transpose(1, 2)

    def _by_products(self, q_BTHd: Tensor, k_BKSd: Tensor, v_BKSd: Tensor, bias: Tensor) -> Tensor:
        """The same by plain products, one for all heads of a group; softmax of bf16 computes in fp32 inside."""
        B, T, H, d = q_BTHd.shape
        q_BKRd = (q_BTHd * d**-0.5).transpose(1, 2).reshape(B, self.kv_heads, -1, d)
        score_BKGTS = (q_BKRd @ k_BKSd.transpose(-1, -2)).view(B, self.kv_heads, H // self.kv_heads, T, -1)
        weight_BKGTS = (score_BKGTS + bias[:, None]).softmax(dim=-1)
        y_BKRd = weight_BKGTS.view(B, self.kv_heads, -1, bias.shape[-1]) @ v_BKSd
        return y_BKRd.view(B, H, T, d).transpose(1, 2)


def _normed(x_BTHd: Tensor, norm: RMSNorm) -> Tensor:
    """The norm over as many neighbouring channels as it has gains: one head (dots.llm1) or all of them (OLMoE)."""
    return norm(x_BTHd.flatten(2).unflatten(2, (-1, norm.weight.shape[0])), x_BTHd.dtype).view(x_BTHd.shape)
