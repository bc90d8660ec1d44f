"""What a plan says a process holds is what the processes of it hold."""

from typing import Any

import pytest

from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop, Parallel, sizes_for
from glassbox.recipe.memory import train_memory
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.train.parallel.place import local, place
from tests.train.parallel.ranks import run_ranks

VOCABULARY = 64
NETWORKS = {
    "dense": Network(
        dim=32, layers=4, hidden=64, attention=Attention(heads=4, kv_heads=2), multi_token=MultiToken(depth=1)
    ),
    "experts": Network(
        dim=32,
        layers=4,
        hidden=48,
        attention=Attention(heads=4, kv_heads=4, qk_norm="head"),
        experts=Experts(count=4, top_k=2, hidden=24, shared=1, first_dense=1),
    ),
}
PLANS = (
    ("dense", {"shard": 2}),
    ("dense", {"replicate": 2, "shard": 1}),
    ("dense", {"shard": 1, "tensor": 2}),
    ("dense", {"shard": 1, "context": 2}),
    ("experts", {"shard": 2}),
    ("experts", {"shard": 2, "expert": 2}),
    ("experts", {"shard": 1, "tensor": 2}),
    ("dense", {"shard": 1, "pipeline": 2}),
    ("experts", {"shard": 1, "pipeline": 2, "schedule": "ZBVZeroBubble", "zero": 2}),
)


def held(name: str, settings: dict[str, Any], world: int) -> tuple[int, int]:
    """Parameters that the fullest process holds under a plan, and those that the recipe's arithmetic expects."""
    plan, network = Parallel(**settings), NETWORKS[name]
    model = Transformer(network, VOCABULARY)
    model.init_weights(1)
    placed = place(model, plan, "cpu")
    (found,) = placed.ranks.most([sum(local(parameter.detach()).numel() for _, parameter in placed.parameters())])
    expected = train_memory(network, VOCABULARY, 64, Loop(parallel=plan), sizes_for(plan, world))
    return int(found), expected.optimizer // 8


def assert_held_as_planned(world: int) -> None:
    for name, settings in PLANS:
        found, expected = held(name, settings, world)
        assert found == pytest.approx(expected, rel=0.02), (name, settings)  # FSDP pads, and gains are not divided


@pytest.mark.matrix
def test_processes_hold_what_the_plan_says() -> None:
    run_ranks(assert_held_as_planned, 2, 2)
