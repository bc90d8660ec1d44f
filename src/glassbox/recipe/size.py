"""What a network costs: parameters, FLOPs and bytes in closed form from its settings, without building it.

Exact for parameters (held against the built network and the published counts); FLOPs count every matrix product once,
a multiply-add as two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from glassbox.recipe.loop import Loop, Parallel, sizes_for
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
class Memory:
    """Bytes on one device while training."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class _Part:
    """Weights of a part: of the products that a token passes through, of idle experts, gains and biases."""

    matrices: int
    idle: int
    vectors: int

    @property
    def total(self) -> int:
        return self.matrices + self.idle + self.vectors


def parameters(network: Network, vocab_size: int) -> Parameters:
    """Parameter counts of the network with a vocabulary of `vocab_size`."""
    blocks = _blocks(network)
    ahead = [_ahead(network)] * _depth(network)
    embedding = vocab_size * network.dim * (1 if network.tie_embeddings else 2)
    total = sum(part.total for part in blocks + ahead) + _gain(network) + embedding
    unused = sum(part.idle for part in blocks) + sum(part.total for part in ahead)
    return Parameters(total, total - unused, embedding)


def _depth(network: Network) -> int:
    return 0 if network.multi_token is None else network.multi_token.depth


def _gain(network: Network) -> int:
    """Gains of one norm of the residual stream's width."""
    return network.dim if network.norm == "rms" else 0


def _blocks(network: Network) -> list[_Part]:
    return [_block(network, dense=layer < network.dense_layers) for layer in range(network.layers)]


def _block(network: Network, *, dense: bool) -> _Part:
    """One block: attention, feed-forward and its two norms."""
    attention, width = network.attention, network.head_dim
    heads = attention.heads + 2 * attention.kv_heads
    matrices = network.dim * width * (heads + attention.heads)
    normed = {None: 0, "head": 2, "whole": attention.heads + attention.kv_heads}[attention.qk_norm]
    vectors = 2 * _gain(network) + width * (normed + heads * attention.bias)
    if dense:
        assert network.hidden is not None
        return _Part(matrices + 3 * network.dim * network.hidden, 0, vectors)
    experts = network.experts
    assert experts is not None
    expert = 3 * network.dim * experts.hidden
    used = (experts.top_k + experts.shared) * expert + experts.count * network.dim
    return _Part(matrices + used, (experts.count - experts.top_k) * expert, vectors)


def _ahead(network: Network) -> _Part:
    """One block that predicts further ahead: its projection of state and token, its block, three norms of its own."""
    block = _block(network, dense=network.experts is None)
    return _Part(block.matrices + 2 * network.dim**2, block.idle, block.vectors + 3 * _gain(network))


def products(network: Network, vocab_size: int) -> tuple[list[int], int]:
    """Weights of the matrix products that a token passes through: in each layer, and after the last one (the head, and
    the blocks that predict further ahead, each with a pass through the head)."""
    head, depth = vocab_size * network.dim, _depth(network)
    ahead = depth * (_ahead(network).matrices + head) if depth else 0
    return [block.matrices for block in _blocks(network)], head + ahead


def forward_flops(network: Network, vocab_size: int, context: int, *, ahead: bool = False) -> float:
    """FLOPs of one token's forward pass in rows of `context` tokens.

    2 for each weight of a matrix product it passes through (the head's included, the embedding's look-up not), and 4 *
    heads * head_dim for each key a token attends to: (context + 1) / 2 on average, fewer under a window. With `ahead`
    the blocks that predict further ahead count as well, each with a pass through the head.
    """
    parts = _blocks(network)
    heads = 1
    if ahead:
        parts += [_ahead(network)] * _depth(network)
        heads += _depth(network)
    matrices = sum(part.matrices for part in parts) + heads * vocab_size * network.dim
    window = min(network.attention.window or context, context)
    keys = (window * (window + 1) / 2 + (context - window) * window) / context
    return 2.0 * matrices + 4.0 * len(parts) * network.attention.heads * network.head_dim * keys


def train_flops(network: Network, vocab_size: int, context: int, *, ahead: bool = False) -> float:
    """FLOPs of training on one token: forward, and twice as much backward; what is computed again does not count."""
    return 3.0 * forward_flops(network, vocab_size, context, ahead=ahead)


ALONE = sizes_for(Parallel(), 1)
"""Sizes of the dimensions of a plan for one process."""


def train_memory(
    network: Network,
    vocab_size: int,
    tokens: int,
    loop: Loop,
    sizes: Mapping[str, int] = ALONE,
    *,
    moments: int = 2,
    ahead: bool = False,
) -> Memory:
    """Bytes on one device while training with `tokens` tokens in a micro-batch under a plan with these `sizes`: fp32
    weights, gradients and the optimizer's moments, and an estimate of what the forward pass keeps for the backward
    (logits are made in chunks).

    `tensor` divides attention and dense feed-forwards, `expert` experts, `pipeline` layers; what is left is shared out
    over fold x context x expert as `zero` says. Gathered weights count beside the shares: with zero 3 two blocks and
    the ends of the network, else all.
    """
    layers, ends = _held(network, vocab_size, sizes)
    everything = [*layers, (0.0, ends)]
    own = sum(experts / _owners(sizes)[0] + rest / _owners(sizes)[1] for experts, rest in everything)
    gathered = [experts * (_owners(sizes)[0] > 1) + rest * (_owners(sizes)[1] > 1) for experts, rest in everything]
    zero = loop.parallel.zero
    copies = sum(gathered) if zero < 3 else sum(sorted(gathered[:-1])[-2:]) + gathered[-1]
    gradients = sum(map(sum, everything)) if zero == 1 else own
    activations = _activations(network, loop, ahead) * tokens / (sizes["context"] * sizes["tensor"])
    return Memory(round(4 * (own + copies)), round(4 * gradients), round(4 * moments * own), round(activations))


def _owners(sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many processes share out a process's experts, and everything else that it holds."""
    of_experts = sizes["fold"] * sizes["context"]
    return of_experts, of_experts * sizes["expert"]


def _held(network: Network, vocab_size: int, sizes: Mapping[str, int]) -> tuple[list[tuple[float, float]], float]:
    """Parameters that a process holds before they are shared out: (of experts, of all else) of each of its layers, and
    of the heavier end of the network; of a pipeline's stages the largest, layers divided evenly."""
    blocks = [(block, layer < network.dense_layers) for layer, block in enumerate(_blocks(network))]
    layers = sorted((_divided(network, block, dense, sizes) for block, dense in blocks), key=sum)
    last = [_divided(network, _ahead(network), network.experts is None, sizes)] * _depth(network)
    table = vocab_size * network.dim
    copied = network.tie_embeddings or network.multi_token is not None
    if sizes["pipeline"] == 1:
        return layers + last, parameters(network, vocab_size).embedding + _gain(network)
    most = -(-len(layers) // sizes["pipeline"])
    return layers[-most:] + last, table * (1 + copied) + _gain(network)


def _divided(network: Network, block: _Part, dense: bool, sizes: Mapping[str, int]) -> tuple[float, float]:
    """What a process holds of a block: parameters of routed experts, and of all else."""
    routed = 0 if dense or network.experts is None else 3 * network.dim * network.experts.hidden * network.experts.count
    shared_out = network.dim * _attention_width(network) + (3 * network.dim * (network.hidden or 0) if dense else 0)
    return routed / sizes["expert"], block.total - routed - shared_out * (1 - 1 / sizes["tensor"])


def _activations(network: Network, loop: Loop, ahead: bool) -> int:
    """Bytes that a token's forward pass keeps for the backward pass.

    A block keeps its inputs, queries, keys and values, and the inner activations of its feed-forward; with `recompute`
    selective only the outputs of products and attention; with full its input alone, and one block whole while it is
    computed again. A pipeline keeps less of the network and more micro-batches at a time, which comes to the same.
    """
    size = 4 if loop.precision == "fp32" else 2
    blocks = [True] * network.dense_layers + [False] * (network.layers - network.dense_layers)
    if ahead:
        blocks += [network.experts is None] * _depth(network)
    whole = [_kept(network, dense) * size + 2 * network.dim * 4 for dense in blocks]
    products = [_products(network, dense) * size + network.dim * 4 for dense in blocks]
    kept = {
        "none": sum(whole),
        "selective": sum(products) + max(w - p for w, p in zip(whole, products, strict=True)),
        "full": len(blocks) * network.dim * 4 + max(whole),
    }[loop.recompute]
    return kept + network.dim * (4 + size)


def _kept(network: Network, dense: bool) -> int:
    """Values of the compute type that a block keeps for a token's backward pass: norms' outputs, products' inputs and
    outputs, queries and keys before and after rotation; gate, up, their silu and their product of a dense feed-forward,
    gate and up alone of routed experts, whose backward pass makes the rest again."""
    attention = network.attention
    rotated = network.head_dim * (attention.heads + attention.kv_heads)
    inner, routed = _inner(network, dense)
    return 4 * network.dim + _attention_width(network) + rotated + 4 * inner + 2 * routed


def _products(network: Network, dense: bool) -> int:
    """Those of them that are outputs of matrix products or of attention."""
    inner, routed = _inner(network, dense)
    return 2 * network.dim + _attention_width(network) + 2 * inner + 2 * routed


def _attention_width(network: Network) -> int:
    """Queries, keys, values and the heads' outputs."""
    return network.head_dim * (2 * network.attention.heads + 2 * network.attention.kv_heads)


def _inner(network: Network, dense: bool) -> tuple[int, int]:
    """Inner width that one token uses: of feed-forwards that every token takes, and of its routed experts."""
    if dense:
        return network.hidden or 0, 0
    assert network.experts is not None
    return network.experts.shared * network.experts.hidden, network.experts.top_k * network.experts.hidden
