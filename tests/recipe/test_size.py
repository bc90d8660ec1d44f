"""Closed forms against the built network and against PyTorch's own FLOP counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.size import forward_flops, parameters, train_flops, train_memory

NETWORKS = [
    Network(dim=48, layers=3, hidden=96, attention=Attention(heads=6, kv_heads=2)),
    Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=4, head_dim=16), tie_embeddings=True),
    Network(
        dim=32,
        layers=2,
        attention=Attention(heads=4, kv_heads=1, window=8),
        experts=Experts(count=8, top_k=2, hidden=48),
    ),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_equal_the_built_network(network: Network) -> None:
    with torch.device("meta"):
        model = Transformer(network, 100)
    counted = parameters(network, 100)
    assert counted.total == sum(weight.numel() for weight in model.parameters())
    outer = [weight for name, weight in model.named_parameters() if name.startswith(("embedding", "head"))]
    assert counted.embedding == sum(weight.numel() for weight in outer)
    if network.experts is None:
        assert counted.active == counted.total
    else:
        idle = (network.experts.count - network.experts.top_k) / network.experts.count
        experts = sum(w.numel() for name, w in model.named_parameters() if w.dim() == 3)
        assert counted.active == counted.total - idle * experts


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_flops_equal_the_counter_up_to_attention(network: Network) -> None:
    """The counter sees matrix products; attention is compared in the limit of one token, where it sees one key."""
    model = Transformer(network, 100)
    model.init_weights(0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(torch.zeros(1, 1, dtype=torch.long))
        output.hidden_BTD @ model.head_VD.T
    counted = counter.get_total_flops()
    attention = 4 * network.layers * network.attention.heads * network.head_dim
    assert counted in (forward_flops(network, 100, 1), forward_flops(network, 100, 1) - attention)


def test_a_window_bounds_attention_and_training_costs_three_passes() -> None:
    wide, narrow = (
        Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=2, window=window))
        for window in (None, 8)
    )
    assert forward_flops(narrow, 100, 8) == forward_flops(wide, 100, 8)
    per_key = 4 * 2 * 4 * 8
    brute = sum(min(position + 1, 8) for position in range(64)) / 64
    assert forward_flops(wide, 100, 64) - forward_flops(narrow, 100, 64) == pytest.approx(per_key * (32.5 - brute))
    assert train_flops(wide, 100, 64) == 3 * forward_flops(wide, 100, 64)


def test_memory_counts_adamw_in_fp32() -> None:
    memory = train_memory(NETWORKS[0], 100, tokens=64)
    total = parameters(NETWORKS[0], 100).total
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * total, 4 * total, 8 * total)
    assert memory.total > 16 * total
