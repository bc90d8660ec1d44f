"""Closed forms against the built network and against PyTorch's own FLOP counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.recipe.size import forward_flops, parameters, train_flops

NETWORKS = [
    Network(dim=48, layers=3, hidden=96, attention=Attention(heads=6, kv_heads=2)),
    Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=4, head_dim=16), tie_embeddings=True),
    Network(
        dim=32,
        layers=2,
        attention=Attention(heads=4, kv_heads=1, window=8),
        experts=Experts(count=8, top_k=2, hidden=48),
    ),
    Network(
        dim=32,
        layers=3,
        hidden=80,
        attention=Attention(heads=4, kv_heads=4, qk_norm="head", bias=True),
        experts=Experts(count=8, top_k=2, hidden=24, shared=2, first_dense=1, score="sigmoid", score_bias=True),
        multi_token=MultiToken(depth=2),
    ),
    Network(
        dim=32,
        layers=2,
        hidden=40,
        attention=Attention(heads=4, kv_heads=2, qk_norm="whole"),
        multi_token=MultiToken(),
        norm="layer",
    ),
]


def mistral(dim: int, layers: int, hidden: int, heads: int, kv_heads: int) -> Network:
    return Network(dim=dim, layers=layers, hidden=hidden, attention=Attention(heads=heads, kv_heads=kv_heads))


def olmoe(dim: int, layers: int, heads: int, count: int, top_k: int, hidden: int) -> Network:
    attention = Attention(heads=heads, kv_heads=heads, qk_norm="whole")
    return Network(
        dim=dim, layers=layers, attention=attention, experts=Experts(count=count, top_k=top_k, hidden=hidden)
    )


def dots(dim: int, layers: int, heads: int, hidden: int, expert: int, count: int, top_k: int) -> Network:
    attention = Attention(heads=heads, kv_heads=heads, qk_norm="head")
    experts = Experts(count=count, top_k=top_k, hidden=expert, shared=2, first_dense=1)
    return Network(dim=dim, layers=layers, hidden=hidden, attention=attention, experts=experts)


def mimo(dim: int, layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int) -> Network:
    attention = Attention(heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=True)
    return Network(dim=dim, layers=layers, hidden=hidden, attention=attention, multi_token=MultiToken())


EURUX = Network(
    dim=6144,
    layers=56,
    attention=Attention(heads=48, kv_heads=8),
    experts=Experts(count=8, top_k=2, hidden=16384, normalise=True),
)

PUBLISHED = [
    # Moxin-7B and Mistral-7B, arXiv:2412.06845 table 1; then Moxin's shape shrunk
    (mistral(4096, 36, 14336, 32, 8), 32000, 8_114_180_096, 8_114_180_096),
    (mistral(4096, 32, 14336, 32, 8), 32000, 7_241_732_096, 7_241_732_096),
    (mistral(256, 9, 896, 8, 2), 4096, 9_769_728, 9_769_728),
    (mistral(128, 9, 448, 8, 2), 4096, 2_967_936, 2_967_936),
    # OLMoE-1B-7B, arXiv:2409.02060 table 10
    (olmoe(2048, 16, 16, 64, 8, 1024), 50304, 6_919_161_856, 1_282_017_280),
    (olmoe(128, 4, 4, 64, 8, 64), 4096, 7_637_120, 2_132_096),
    (olmoe(128, 4, 4, 16, 2, 64), 4096, 2_893_952, 1_517_696),
    (olmoe(64, 2, 2, 16, 2, 32), 4096, 756_288, 584_256),
    # dots.llm1, arXiv:2506.05767 table 6
    (dots(4096, 62, 32, 10944, 1408, 128, 6), 152064, 142_774_373_888, 14_016_581_120),
    (dots(64, 3, 2, 171, 22, 16, 3), 2048, 498_880, 389_056),
    (dots(128, 6, 4, 342, 44, 32, 6), 4096, 4_467_968, 2_271_488),
    (dots(64, 6, 2, 171, 22, 128, 6), 4096, 3_443_200, 866_560),
    (dots(128, 8, 4, 342, 44, 128, 6), 4096, 17_196_928, 2_767_744),
    # Eurux-8x22B, its base Mixtral-8x22B
    (EURUX, 32000, 140_620_634_112, 39_152_031_744),
    # MiMo-7B with its multi-token block, arXiv:2505.07608 section 2.2; a token's way to the next one does without it
    (mimo(4096, 36, 32, 8, 128, 11008), 151680, 7_833_409_536, 7_622_619_136),
    (mimo(64, 3, 4, 1, 16, 172), 2048, 444_544, 392_672),
    (mimo(128, 6, 4, 1, 32, 344), 4096, 2_296_384, 2_089_728),
    (mimo(256, 8, 8, 2, 32, 688), 4096, 8_467_328, 7_642_368),
]
"""Network, vocabulary, parameters in all, parameters a token passes through: the releases, and shrunk ones that were
counted in transformers' classes."""


@pytest.mark.parametrize(("network", "vocab_size", "total", "active"), PUBLISHED)
def test_parameters_equal_the_published_numbers(network: Network, vocab_size: int, total: int, active: int) -> None:
    counted = parameters(network, vocab_size)
    assert (counted.total, counted.active) == (total, active)


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_equal_the_built_network(network: Network) -> None:
    with torch.device("meta"):
        model = Transformer(network, 100)
    counted = parameters(network, 100)
    assert counted.total == sum(weight.numel() for weight in model.parameters())
    outer = [weight for name, weight in model.named_parameters() if name.startswith(("embedding", "head"))]
    assert counted.embedding == sum(weight.numel() for weight in outer)
    unused = sum(w.numel() for name, w in model.named_parameters() if name.startswith("multi_token"))
    if network.experts is not None:
        idle = (network.experts.count - network.experts.top_k) / network.experts.count
        unused += idle * sum(w.numel() for name, w in model.named_parameters() if name[0] == "b" and w.dim() == 3)
    assert counted.active == counted.total - unused


@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[1], NETWORKS[3]])
def test_flops_equal_the_counter_up_to_attention(network: Network) -> None:
    """The counter sees matrix products; attention is compared in the limit of one token, where it sees one key."""
    model = Transformer(network, 100)
    model.init_weights(0)
    with FlopCounterMode(display=False) as counter:  # with gradients: only so are grouped products counted
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


def test_blocks_that_predict_ahead_cost_only_where_they_run() -> None:
    with_blocks = mimo(64, 3, 4, 1, 16, 172)
    without = with_blocks.model_copy(update={"multi_token": None})
    assert forward_flops(with_blocks, 2048, 64) == forward_flops(without, 2048, 64)
    matrices = 51_872 - 5 * 64 - 6 * 16 + 2048 * 64  # less norms and biases, and the head once more
    extra = 2 * matrices + 4 * 4 * 16 * 32.5
    assert forward_flops(with_blocks, 2048, 64, ahead=True) == forward_flops(without, 2048, 64) + extra
