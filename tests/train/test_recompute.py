"""Recomputation: the same gradients bit for bit, and less kept between the passes."""

import gc
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.train.losses import next_token
from glassbox.train.recompute import recompute_blocks
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import Beside, accumulate
from tests.train.conftest import VOCABULARY, counting_rows

PARTS: dict[str, dict[str, Any]] = {
    "dense": {"hidden": 96},
    "experts": {
        "hidden": 96,
        "experts": Experts(
            count=8, top_k=2, hidden=48, shared=1, first_dense=1, score="sigmoid", score_bias=True, sequence_loss=1e-3
        ),
        "multi_token": MultiToken(),
    },
}


def build(part: str, dtype: torch.dtype) -> Transformer:
    network = Network(
        dim=48, layers=4, attention=Attention(heads=4, kv_heads=2, window=16, qk_norm="head"), **PARTS[part]
    )
    model = Transformer(network, VOCABULARY)
    model.init_weights(1)
    model.compute_dtype = dtype
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("how", ["selective", "full"])
def test_the_gradient_is_the_same_bit_for_bit(part, how, dtype):
    grads = []
    for recompute in ("none", how):
        model, rows = build(part, dtype), to_rows(counting_rows(1))
        recompute_blocks(model, recompute)
        result = accumulate(model, rows, next_token, labelled_tokens(rows), 4, Beside(multi_token=0.3))
        grads.append([torch.tensor(result.loss)] + [parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        assert torch.equal(plain, recomputed)


def kept_bytes(part: str, how: str) -> int:
    """Bytes that a forward pass leaves allocated for the backward pass."""
    model, rows = build(part, torch.float32), to_rows(counting_rows(1, rows=16, pad=0))
    recompute_blocks(model, how)
    model(rows["ids"]).hidden_BTD.sum().backward()
    gc.collect()  # what goes away meanwhile would count against it
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        output = model(rows["ids"])
    assert output.hidden_BTD.requires_grad
    return sum(event.self_cpu_memory_usage for event in recorded.key_averages())


@pytest.mark.parametrize("part", PARTS)
def test_less_is_kept(part):
    plain, selective, full = (kept_bytes(part, how) for how in ("none", "selective", "full"))
    assert 0 < full < 0.4 * plain
    assert full < selective < 0.8 * plain


def test_it_can_be_taken_back_and_decoding_goes_without():
    model, ids = build("dense", torch.float32), torch.zeros(1, 5, dtype=torch.long)
    recompute_blocks(model, "full")
    with torch.no_grad():
        first = model(ids).hidden_BTD
    recompute_blocks(model, "none")
    assert all("forward" not in vars(block) for block in model.blocks)
    with torch.no_grad():
        assert torch.equal(first, model(ids).hidden_BTD)
