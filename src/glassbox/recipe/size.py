"""What a network costs: parameters, FLOPs and bytes in closed form from its settings, without building it.

Exact for parameters (held against the built network); FLOPs count every matrix product once, a multiply-add as two.
"""

from dataclasses import dataclass

from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a network."""

    total: int
    active: int
    """Those a token passes through: all but the experts it is not sent to."""
    embedding: int
    """The embedding and, if it is not tied to it, the output head."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while training, the network whole on it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def parameters(network: Network, vocab_size: int) -> Parameters:
    """Parameter counts of the network with a vocabulary of `vocab_size`."""
    block, idle = _block(network)
    embedding = vocab_size * network.dim * (1 if network.tie_embeddings else 2)
    total = network.layers * block + network.dim + embedding
    return Parameters(total, total - network.layers * idle, embedding)


def _block(network: Network) -> tuple[int, int]:
    """(parameters of one block, those of them that a token does not use)."""
    attention = network.attention
    heads = attention.heads + 2 * attention.kv_heads
    shared = network.dim * network.head_dim * (heads + attention.heads) + 2 * network.dim
    if network.experts is None:
        assert network.hidden is not None
        return shared + 3 * network.dim * network.hidden, 0
    expert = 3 * network.dim * network.experts.hidden
    idle = (network.experts.count - network.experts.top_k) * expert
    return shared + network.experts.count * (expert + network.dim), idle


def forward_flops(network: Network, vocab_size: int, context: int) -> float:
    """FLOPs of one token's forward pass in rows of `context` tokens.

    2 for each active weight of a matrix product (the head's included, the embedding's look-up not), and 4 * heads *
    head_dim for each key a token attends to: (context + 1) / 2 on average, fewer under a window.
    """
    head = vocab_size * network.dim
    counted = parameters(network, vocab_size)
    matrices = counted.active - counted.embedding - network.dim - network.layers * 2 * network.dim + head
    window = min(network.attention.window or context, context)
    keys = (window * (window + 1) / 2 + (context - window) * window) / context
    return 2.0 * matrices + 4.0 * network.layers * network.attention.heads * network.head_dim * keys


def train_flops(network: Network, vocab_size: int, context: int) -> float:
    """FLOPs of training on one token: forward, and twice as much backward."""
    return 3.0 * forward_flops(network, vocab_size, context)


def train_memory(network: Network, vocab_size: int, tokens: int, precision: str = "bf16") -> Memory:
    """Bytes while training with `tokens` tokens in a micro-batch: fp32 weights, gradients and AdamW's two moments, and
    an estimate of what the forward pass keeps for the backward (no recomputation; logits are made in chunks)."""
    total = parameters(network, vocab_size).total
    attention = network.attention
    width = network.head_dim * (2 * attention.heads + 2 * attention.kv_heads)
    inner = network.hidden or 0
    if network.experts is not None:
        inner = network.experts.top_k * network.experts.hidden + network.experts.top_k * network.dim
    kept = 4 * network.dim + width + 3 * inner
    size = 2 if precision == "bf16" else 4
    activations = tokens * (network.layers * (kept * size + 2 * network.dim * 4) + network.dim * (4 + size))
    return Memory(4 * total, 4 * total, 8 * total, activations)
