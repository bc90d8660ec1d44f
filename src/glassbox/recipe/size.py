"""What a network costs: parameters and FLOPs in closed form from its settings, without building it.

Exact for parameters (held against the built network and the published counts); FLOPs count every matrix product once,
a multiply-add as two.
"""

from dataclasses import dataclass

from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a network. A router's balancing bias is a buffer and not among them."""

    total: int
    active: int
    """Those a token passes through on the way to the next token: neither the experts it is not sent to nor the blocks
    that predict further ahead."""
    embedding: int
    """The embedding and, if it is not tied to it, the output head."""


@dataclass(frozen=True)
class Part:
    """Weights of a part: of the products that a token passes through, of idle experts, gains and biases."""

    matrices: int
    idle: int
    vectors: int

    @property
    def total(self) -> int:
        return self.matrices + self.idle + self.vectors


def parameters(network: Network, vocab_size: int) -> Parameters:
    """Parameter counts of the network with a vocabulary of `vocab_size`."""
    blocks = layers_of(network)
    ahead = [part_ahead(network)] * depth_ahead(network)
    embedding = vocab_size * network.dim * (1 if network.tie_embeddings else 2)
    total = sum(part.total for part in blocks + ahead) + gain(network) + embedding
    unused = sum(part.idle for part in blocks) + sum(part.total for part in ahead)
    return Parameters(total, total - unused, embedding)


def depth_ahead(network: Network) -> int:
    """Blocks that predict further ahead."""
    return 0 if network.multi_token is None else network.multi_token.depth


def gain(network: Network) -> int:
    """Gains of one norm of the residual stream's width."""
    return network.dim if network.norm == "rms" else 0


def layers_of(network: Network) -> list[Part]:
    """Every layer, from the first one on."""
    return [_block(network, dense=layer < network.dense_layers) for layer in range(network.layers)]


def _block(network: Network, *, dense: bool) -> Part:
    """One block: attention, feed-forward and its two norms."""
    attention, width = network.attention, network.head_dim
    heads = attention.heads + 2 * attention.kv_heads
    matrices = network.dim * width * (heads + attention.heads)
    normed = {None: 0, "head": 2, "whole": attention.heads + attention.kv_heads}[attention.qk_norm]
    vectors = 2 * gain(network) + width * (normed + heads * attention.bias)
    if dense:
        assert network.hidden is not None
        return Part(matrices + 3 * network.dim * network.hidden, 0, vectors)
    experts = network.experts
    assert experts is not None
    expert = 3 * network.dim * experts.hidden
    used = (experts.top_k + experts.shared) * expert + experts.count * network.dim
    return Part(matrices + used, (experts.count - experts.top_k) * expert, vectors)


def part_ahead(network: Network) -> Part:
    """One block that predicts further ahead: its projection of state and token, its block, three norms of its own."""
    block = _block(network, dense=network.experts is None)
    return Part(block.matrices + 2 * network.dim**2, block.idle, block.vectors + 3 * gain(network))


def products(network: Network, vocab_size: int) -> tuple[list[int], int]:
    """Weights of the matrix products that a token passes through: in each layer, and after the last one (the head, and
    the blocks that predict further ahead, each with a pass through the head)."""
    head, depth = vocab_size * network.dim, depth_ahead(network)
    ahead = depth * (part_ahead(network).matrices + head) if depth else 0
    return [block.matrices for block in layers_of(network)], head + ahead


def forward_flops(network: Network, vocab_size: int, context: int, *, ahead: bool = False) -> float:
    """FLOPs of one token's forward pass in rows of `context` tokens.

    2 for each weight of a matrix product it passes through (the head's included, the embedding's look-up not), and 4 *
    heads * head_dim for each key a token attends to: (context + 1) / 2 on average, fewer under a window. With `ahead`
    the blocks that predict further ahead count as well, each with a pass through the head.
    """
    parts = layers_of(network)
    heads = 1
    if ahead:
        parts += [part_ahead(network)] * depth_ahead(network)
        heads += depth_ahead(network)
    matrices = sum(part.matrices for part in parts) + heads * vocab_size * network.dim
    window = min(network.attention.window or context, context)
    keys = (window * (window + 1) / 2 + (context - window) * window) / context
    return 2.0 * matrices + 4.0 * len(parts) * network.attention.heads * network.head_dim * keys


def train_flops(network: Network, vocab_size: int, context: int, *, ahead: bool = False) -> float:
    """FLOPs of training on one token: forward, and twice as much backward; what is computed again does not count."""
    return 3.0 * forward_flops(network, vocab_size, context, ahead=ahead)
