"""The decoder-only transformer: pre-norm blocks of attention and a feed-forward, dense or of experts.

One forward serves training and decoding. Precision: weights are fp32; matrix products run in `compute_dtype`; the
residual stream, norms, softmax, router and losses stay in fp32.

Letters: B batch, T tokens of a row, D model width, V vocabulary, L layers with experts, E experts.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass

from glassbox.model.attention import Attention, Shared, share
from glassbox.model.cache import Cache
from glassbox.model.experts import MixtureOfExperts, Router, Routing, balance
from glassbox.model.feed_forward import FeedForward
from glassbox.model.layers import Linear, norm
from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Output:
    """What a forward pass gives."""

    hidden_BTD: Tensor
    """States after the final norm, in the compute type; logits are `hidden_BTD @ model.head_VD.T`."""
    state_BTD: Tensor
    """States before the final norm, fp32: what `Transformer.draft` goes on from."""
    aux: Tensor
    """Scalar, fp32: the weighted router losses (`experts.balance`), those over the micro-batch averaged over layers,
    those over sequences summed; 0 if dense or decoding from a cache. Of a stretch of layers: its part of the whole."""
    load_LE: Tensor | None
    """Tokens sent to each expert of each layer that has experts, those of multi-token blocks after them, padding left
    out; None if dense or decoding."""
    drafts: tuple[Tensor, ...] = ()
    """If asked for: for k = 1, 2 ... the state (B, T, D) whose logits at position i predict token i + k + 1."""


register_dataclass(Output)  # FSDP looks for tensors in what a module returns


@dataclass(frozen=True)
class Columns:
    """Which columns of its rows a network works on, where several processes share them out; all of them alone."""

    index: int = 0
    count: int = 1
    total: Callable[[Tensor], Tensor] = lambda statistic: statistic
    """Adds up a statistic over all columns of the rows; its gradient reaches this process's own part of it."""

    def own(self, x_BT: Tensor) -> Tensor:
        """This process's columns, (B, T / count, ...)."""
        T = x_BT.shape[1]
        return x_BT[:, T * self.index // self.count : T * (self.index + 1) // self.count]


class Block(nn.Module):
    """x_BTD -> (x_BTD, Routing or None): x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, network: Network, layer: int):
        super().__init__()
        self.attention_norm = norm(network)
        self.attention = Attention(network, layer)
        self.feed_forward_norm = norm(network)
        self.feed_forward: FeedForward | MixtureOfExperts
        if layer < network.dense_layers or network.experts is None:
            assert network.hidden is not None
            self.feed_forward = FeedForward(network.dim, network.hidden)
        else:
            self.feed_forward = MixtureOfExperts(network)

    def forward(self, x_BTD: Tensor, shared: Shared, cache: Cache | None) -> tuple[Tensor, Routing | None]:
        dtype = shared.cos.dtype
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD, dtype), shared, cache)
        normed_BTD = self.feed_forward_norm(x_BTD, dtype)
        if isinstance(self.feed_forward, FeedForward):
            return x_BTD + self.feed_forward(normed_BTD), None
        y_BTD, routing = self.feed_forward(normed_BTD, shared.real_BT)
        return x_BTD + y_BTD, routing


class MultiTokenBlock(nn.Module):
    """(state_BTD, embedded_BTD) -> (state for the head (B, T, D), Routing or None).

    From the last layer's state at position i and the embedding of token i + k: one product over [normed state, normed
    embedding], an ordinary block, a norm (MiMo, arXiv:2505.07608, section 2.2; names and order of MiMo's own code).
    """

    def __init__(self, network: Network, depth: int):
        super().__init__()
        self.token_norm = norm(network)
        self.hidden_norm = norm(network)
        self.project = Linear(2 * network.dim, network.dim)
        self.block = Block(network, network.layers + depth)
        self.norm = norm(network)

    def forward(
        self, state_BTD: Tensor, embedded_BTD: Tensor, shared: Shared, cache: Cache | None
    ) -> tuple[Tensor, Routing | None]:
        dtype = shared.cos.dtype
        both = torch.cat((self.hidden_norm(state_BTD, dtype), self.token_norm(embedded_BTD, dtype)), dim=-1)
        x_BTD, routing = self.block(self.project(both).float(), shared, cache)
        return self.norm(x_BTD, dtype), routing


class Transformer(nn.Module):
    """ids (B, T) -> Output. A new one holds undefined weights until `init_weights` or loading fills them."""

    def __init__(self, network: Network, vocab_size: int):
        super().__init__()
        self.network, self.vocab_size = network, vocab_size
        self.compute_dtype = torch.float32
        """Type of the matrix products; set it to bfloat16 for mixed precision."""
        self.columns = Columns()
        """The columns that this process computes; what it is given and attends to are whole rows all the same."""
        self.ends = True
        """Whether the last layer is here; without it (`train/parallel/stages.py`) `Output.hidden_BTD` is the state."""
        self.embedding = nn.Embedding(vocab_size, network.dim, _weight=torch.empty(vocab_size, network.dim))
        self.blocks = nn.ModuleList(Block(network, layer) for layer in range(network.layers))
        self.norm = norm(network)
        self.head = None if network.tie_embeddings else Linear(network.dim, vocab_size)
        depth = network.multi_token.depth if network.multi_token else 0
        self.multi_token = nn.ModuleList(MultiTokenBlock(network, k) for k in range(depth))

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
        drafts: bool = False,
        state_BTD: Tensor | None = None,
    ) -> Output:
        """Run the network, or in a pipeline a stretch of its layers, from the state that the layers before them left.

        Without a cache: `positions_BT` restart at 0 in each document (None: 0..T-1), and tokens attend to earlier
        tokens of their own run of equal numbers in `documents_BT` (None: to all); a negative number marks padding,
        which router losses and loads leave out. With a cache of B rows: the new tokens are stored at `positions_BT` and
        attend to everything stored at or before their own position (negative: padding); None: the rows are new and
        start at 0. With `drafts` (and no cache) the multi-token blocks run too. The output has `columns` alone.
        """
        shared = self.shared(ids_BT, positions_BT, documents_BT, cache)
        x_BTD = self.embed(self.columns.own(ids_BT)) if state_BTD is None else state_BTD
        routings: list[Routing | None] = []
        for block in self.blocks:
            x_BTD, routing = block(x_BTD, shared, cache)
            routings.append(routing)
        return self.finish(x_BTD, routings, ids_BT, shared, cache, drafts)

    def shared(
        self, ids_BT: Tensor, positions_BT: Tensor | None, documents_BT: Tensor | None, cache: Cache | None = None
    ) -> Shared:
        """What every layer needs alike, of the same arguments as a forward pass."""
        shared = share(self.network, ids_BT, positions_BT, documents_BT, cache, self.compute_dtype)
        return shared if shared.real_BT is None else replace(shared, real_BT=self.columns.own(shared.real_BT))

    def finish(
        self,
        x_BTD: Tensor,
        routings: list[Routing | None],
        ids_BT: Tensor,
        shared: Shared,
        cache: Cache | None,
        drafts: bool,
    ) -> Output:
        """What comes after the layers, from the state and the routings that they leave."""
        drafted: list[Tensor] = []
        if drafts:
            for k, module in enumerate(self.multi_token, 1):
                # the last k positions have no token to look at; what they are given instead, nobody may use
                ahead_BTD = self.embed(self.columns.own(ids_BT.roll(-k, dims=1)))
                hidden, routing = module(self._handed_on(x_BTD), ahead_BTD, shared, None)
                drafted.append(self._scaled(hidden))
                routings = [*routings, routing]
        hidden_BTD = self._scaled(self.norm(x_BTD, self.compute_dtype)) if self.ends else x_BTD
        aux, load_LE = x_BTD.new_zeros(()), None
        chosen = [routing for routing in routings if routing is not None]
        if chosen and cache is None:
            aux, load_LE = self._balance(chosen, shared.real_BT, drafts)
        return Output(hidden_BTD, x_BTD, aux, load_LE, tuple(drafted))

    def draft(
        self, k: int, state_BTD: Tensor, next_ids_BT: Tensor, positions_BT: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """The state (B, T, D) of multi-token block `k` (0 is the first), whose logits predict token i + k + 2 from the
        network's `state_BTD` at position i and token i + k + 1; its keys and values go into the cache's layer
        `layers + k`."""
        shared = share(self.network, next_ids_BT, positions_BT, None, cache, self.compute_dtype)
        hidden, _ = self.multi_token[k](self._handed_on(state_BTD), self.embed(next_ids_BT), shared, cache)
        return self._scaled(hidden)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """The tokens' vectors, (B, T, D) in fp32."""
        return F.embedding(ids_BT, self.embedding.weight).float()

    def _scaled(self, hidden_BTD: Tensor) -> Tensor:
        """Under muP the head's input shrinks as the width grows (arXiv:2203.03466, table 8)."""
        return hidden_BTD if self.network.mup_base is None else hidden_BTD * (self.network.mup_base / self.network.dim)

    def _handed_on(self, state_BTD: Tensor) -> Tensor:
        """What the multi-token blocks take from the last layer."""
        assert self.network.multi_token is not None
        return self.norm(state_BTD, torch.float32) if self.network.multi_token.normed else state_BTD

    @property
    def first_load(self) -> int:
        """The row of the whole network's `Output.load_LE` at which those of this stretch of its layers start."""
        first = next(iter(self.blocks))
        assert isinstance(first, Block)
        return max(0, first.attention.layer - self.network.dense_layers)

    def expert_layers(self, drafts: bool) -> int:
        """Layers of the whole network that have experts, those of its multi-token blocks with `drafts`."""
        network = self.network
        if network.experts is None:
            return 0
        ahead = network.multi_token.depth if drafts and network.multi_token else 0
        return network.layers - network.dense_layers + ahead

    def _balance(self, routings: list[Routing], real_BT: Tensor | None, drafts: bool) -> tuple[Tensor, Tensor]:
        assert self.network.experts is not None
        each = [balance(routing, real_BT, self.network.experts, self.columns.total) for routing in routings]
        losses, sequence_losses, loads = zip(*each, strict=True)
        mean = torch.stack(losses).sum() / self.expert_layers(drafts)
        return mean + torch.stack(sequence_losses).sum(), torch.stack(loads)

    def routers(self) -> list[Router]:
        """The routers in the order of `Output.load_LE`."""
        return [module for module in self.modules() if isinstance(module, Router)]

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Matrix products run in `dtype` inside the block."""
        before, self.compute_dtype = self.compute_dtype, dtype
        try:
            yield
        finally:
            self.compute_dtype = before

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Set every weight, in place, from the seed.

        | tensor                  | first values                                                                 |
        |-------------------------|------------------------------------------------------------------------------|
        | gains of norms          | 1                                                                            |
        | biases, of routers too  | 0                                                                            |
        | embedding, head         | normal with deviation `init_std`; cut at 3 deviations if `init` is truncated |
        |                         | (OLMoE, arXiv:2409.02060, appendix B)                                        |
        | every other matrix      | the same; under muP with deviation `init_std * sqrt(mup_base / dim)`         |
        |                         | (arXiv:2203.03466, table 8)                                                  |

        A tensor's values follow from the seed and its name, not from the order of building.
        """
        for name, weight in (*self.named_parameters(), *self.named_buffers()):
            init_weight(name, weight, self.network, seed)


@torch.no_grad()
def init_weight(name: str, weight: Tensor, network: Network, seed: int) -> Tensor:
    """Set the whole named weight to its first value (`Transformer.init_weights`), in place; returns it."""
    if weight.dim() == 1:
        return weight.fill_(0.0 if "bias" in name else 1.0)
    std = network.init_std * mup_width(name, network) ** -0.5
    generator = named_generator(seed, name, weight.device)
    if network.init == "truncated":
        return nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)
    return weight.normal_(std=std, generator=generator)


def named_generator(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A source of random numbers that follow from the seed and a tensor's name alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))


def mup_width(name: str, network: Network) -> float:
    """How many times wider than `mup_base` the input of the named weight is, for muP (arXiv:2203.03466, table 8): its
    first deviation is divided by the root of it, its learning rate by it. 1 for the embedding, the head, gains, biases
    and without muP. Attention keeps 1/sqrt(head_dim), as head_dim does not grow with the width."""
    if network.mup_base is None or name.endswith(("norm.weight", "bias")) or name.startswith(("embedding.", "head.")):
        return 1.0
    return network.dim / network.mup_base
