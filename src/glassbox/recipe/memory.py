"""What training takes of a device's memory, in closed form from the settings of the network and of the plan.

Held against what the processes of a plan hold; what the forward pass keeps is an estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from glassbox.recipe.loop import Loop, Parallel, sizes_for
from glassbox.recipe.network import Network
from glassbox.recipe.size import Part, depth_ahead, gain, layers_of, part_ahead
from glassbox.recipe.stretches import division, embedded_twice, stage_numbers


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
    plan = loop.parallel
    activations = _activations(network, loop, ahead) * tokens / (sizes["context"] * sizes["tensor"])
    of_each = [_held(network, vocab_size, plan, sizes, index) for index in range(plan.pipeline)]
    most = max((_shared_out(blocks, ends, plan.zero, sizes, moments) for blocks, ends in of_each), key=sum)
    return Memory(*most, round(activations))


def _shared_out(
    blocks: list[tuple[float, float]], ends: float, zero: int, sizes: Mapping[str, int], moments: int
) -> tuple[int, int, int]:
    """Bytes of weights, gradients and moments of a process that holds these blocks and ends, shared out with others."""
    everything = [*blocks, (0.0, ends)]
    own = sum(experts / _owners(sizes)[0] + rest / _owners(sizes)[1] for experts, rest in everything)
    gathered = [experts * (_owners(sizes)[0] > 1) + rest * (_owners(sizes)[1] > 1) for experts, rest in everything]
    copies = sum(gathered) if zero < 3 else sum(sorted(gathered[:-1])[-2:]) + gathered[-1]
    gradients = sum(map(sum, everything)) if zero == 1 else own
    return round(4 * (own + copies)), round(4 * gradients), round(4 * moments * own)


def _owners(sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many processes share out a process's experts, and everything else that it holds."""
    of_experts = sizes["fold"] * sizes["context"]
    return of_experts, of_experts * sizes["expert"]


def _held(
    network: Network, vocab_size: int, plan: Parallel, sizes: Mapping[str, int], index: int
) -> tuple[list[tuple[float, float]], float]:
    """Parameters that the `index`-th process of the pipeline holds before they are shared out: (of experts, of all
    else) of each of its blocks, and of the ends of the network."""
    blocks = [(block, layer < network.dense_layers) for layer, block in enumerate(layers_of(network))]
    ahead = [(part_ahead(network), network.experts is None)] * depth_ahead(network)
    stages, table = division(network, vocab_size, plan.stages), vocab_size * network.dim
    held, ends = [], 0.0
    for number in stage_numbers(plan, index):
        held += [blocks[layer] for layer in stages[number]]
        if number == 0:
            ends += table
        if number == plan.stages - 1:
            held += ahead
            copies = (not network.tie_embeddings) + embedded_twice(network, plan.stages)
            ends += table * copies + gain(network)
    return [_divided(network, block, dense, sizes) for block, dense in held], ends


def _divided(network: Network, block: Part, dense: bool, sizes: Mapping[str, int]) -> tuple[float, float]:
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
        blocks += [network.experts is None] * depth_ahead(network)
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
