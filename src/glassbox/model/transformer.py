"""The decoder-only transformer: pre-norm blocks of attention and a feed-forward, dense or of experts.

One forward serves training and decoding. Precision: weights are fp32; matrix products run in `compute_dtype`; the
residual stream, norms, softmax, router and losses stay in fp32.

Letters: B batch, T tokens of a row, D model width, V vocabulary, L layers, E experts.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassbox.model.attention import Attention, Shared, share
from glassbox.model.cache import Cache
from glassbox.model.experts import MixtureOfExperts, Routing, balance
from glassbox.model.feed_forward import FeedForward
from glassbox.model.layers import Linear, RMSNorm
from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Output:
    """What a forward pass gives."""

    hidden_BTD: Tensor
    """States after the final norm, in the compute type; logits are `hidden_BTD @ model.head_VD.T`."""
    aux: Tensor
    """Scalar, fp32: the weighted router losses, mean over tokens and layers; 0 if dense or decoding from a cache."""
    load_LE: Tensor | None
    """Tokens sent to each expert of each layer, padding left out; None if dense or decoding."""


class Block(nn.Module):
    """x_BTD -> (x_BTD, Routing or None): x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, network: Network, layer: int):
        super().__init__()
        self.attention_norm = RMSNorm(network.dim, network.norm_eps)
        self.attention = Attention(network, layer)
        self.feed_forward_norm = RMSNorm(network.dim, network.norm_eps)
        self.feed_forward: FeedForward | MixtureOfExperts
        if network.hidden is not None:
            self.feed_forward = FeedForward(network.dim, network.hidden)
        else:
            self.feed_forward = MixtureOfExperts(network)

    def forward(self, x_BTD: Tensor, shared: Shared, cache: Cache | None) -> tuple[Tensor, Routing | None]:
        dtype = shared.cos.dtype
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD, dtype), shared, cache)
        normed_BTD = self.feed_forward_norm(x_BTD, dtype)
        if isinstance(self.feed_forward, FeedForward):
            return x_BTD + self.feed_forward(normed_BTD), None
        y_TD, routing = self.feed_forward(normed_BTD.flatten(0, 1))
        return x_BTD + y_TD.view_as(x_BTD), routing


class Transformer(nn.Module):
    """ids (B, T) -> Output. A new one holds undefined weights until `init_weights` or loading fills them."""

    def __init__(self, network: Network, vocab_size: int):
        super().__init__()
        self.network, self.vocab_size = network, vocab_size
        self.compute_dtype = torch.float32
        """Type of the matrix products; set it to bfloat16 for mixed precision."""
        self.embedding = nn.Embedding(vocab_size, network.dim, _weight=torch.empty(vocab_size, network.dim))
        self.blocks = nn.ModuleList(Block(network, layer) for layer in range(network.layers))
        self.norm = RMSNorm(network.dim, network.norm_eps)
        self.head = None if network.tie_embeddings else Linear(network.dim, vocab_size)

    @property
    def head_VD(self) -> Tensor:
        """The output matrix in the compute type; the embedding's own when they are tied."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return weight.to(self.compute_dtype)

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Run the network.

        Without a cache: `positions_BT` restart at 0 in each document (None: 0..T-1), and tokens attend to earlier
        tokens with the same number in `documents_BT` (None: to all); a negative number marks padding, which router
        losses and loads leave out. With a cache of B rows: the new tokens are stored at `positions_BT` and attend to
        everything stored at or before their own position; None: the rows are new and start at 0.
        """
        shared = share(self.network, ids_BT, positions_BT, documents_BT, cache, self.compute_dtype)
        x_BTD = F.embedding(ids_BT, self.embedding.weight).float()
        routings: list[Routing] = []
        for block in self.blocks:
            x_BTD, routing = block(x_BTD, shared, cache)
            if routing is not None:
                routings.append(routing)
        hidden_BTD = self.norm(x_BTD, self.compute_dtype)
        if not routings or cache is not None:
            return Output(hidden_BTD, x_BTD.new_zeros(()), None)
        valid_T = None if documents_BT is None else documents_BT.flatten() >= 0
        assert self.network.experts is not None
        losses, loads = zip(*(balance(routing, valid_T, self.network.experts) for routing in routings), strict=True)
        return Output(hidden_BTD, torch.stack(losses).mean(), torch.stack(loads))

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Matrix products run in `dtype` inside the block."""
        before, self.compute_dtype = self.compute_dtype, dtype
        try:
            yield
        finally:
            self.compute_dtype = before

    def init_weights(self, seed: int) -> None:
        """Set every weight, in place, from the seed.

        | tensor                                       | first values                                              |
        |----------------------------------------------|-----------------------------------------------------------|
        | gains of norms                               | 1                                                         |
        | every matrix: embedding, attention, experts, | normal with deviation `init_std`, cut at 3 deviations     |
        | router, feed-forward, head                   | (OLMoE, arXiv:2409.02060, appendix B)                     |

        A tensor's values follow from the seed and its name, not from the order of building.
        """
        std = self.network.init_std
        for name, weight in self.named_parameters():
            if weight.dim() == 1:
                nn.init.ones_(weight)
            else:
                digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
                generator = torch.Generator(weight.device).manual_seed(int.from_bytes(digest[:7], "little"))
                nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)
