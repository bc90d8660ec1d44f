"""A run that changes its plan on the way keeps its curve; one whose processes are killed ends with the same bits."""

import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist

from glassbox.errors import Interrupted
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop, Parallel
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.step import Beside
from tests.train.conftest import VOCABULARY, counting_rows
from tests.train.parallel.killing import killed_and_calm
from tests.train.parallel.ranks import run_ranks

NETWORK = Network(
    dim=32,
    layers=4,
    hidden=48,
    attention=Attention(heads=4, kv_heads=2, bias=True),
    experts=Experts(
        count=8, top_k=2, hidden=16, shared=1, first_dense=1, score="sigmoid", score_bias=True, sequence_loss=1e-3
    ),
    multi_token=MultiToken(depth=1),
    tie_embeddings=True,
    init_std=0.1,
)
EACH = 3
"""Steps under each plan."""

FEW = ({"shard": 2, "expert": 2}, {"tensor": 2}, {"pipeline": 2})
MORE = ({"shard": 2}, {"context": 2}, {"pipeline": 2, "schedule": "ZBVZeroBubble", "zero": 2}, {"replicate": 2})
OF_FOUR = (
    {"replicate": 2, "shard": 2},
    {"shard": 4, "expert": 2},
    {"shard": 2, "tensor": 2},
    {"shard": 2, "context": 2, "expert": 2},
    {"shard": 2, "pipeline": 2, "zero": 2, "schedule": "DualPipeV"},
    {"shard": 4},
)


def go_on(folder: Path, until: int, steps: int, plan: dict) -> None:
    """The run under a plan, from its newest checkpoint until that step is done."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    folder.mkdir(parents=True, exist_ok=True)
    model = Transformer(NETWORK, VOCABULARY)
    model.init_weights(3)
    workspace = Workspace(folder, rank=rank)
    workspace.stop_requested = lambda: any(row["step"] >= until for row in read_metrics(folder))
    loop = Loop(micro_rows=2, parallel=Parallel(**plan), checkpoint_every=1000, log_every=1)
    course = steady(Optimizer(lr=5e-3, clip=0.5), Schedule(warmup=0.1), steps, Beside(True, 0.3, 1e-3))
    with suppress(Interrupted):
        fit(
            model,
            partial(counting_rows, rows=8),
            next_token,
            steps=steps,
            course=course,
            loop=loop,
            workspace=workspace,
        )


def go_through(folder: Path, steps: int, plans: tuple[dict, ...]) -> None:
    for number, plan in enumerate(plans, 2):
        go_on(folder, EACH * number, steps, plan)


def assert_same_curve(folder: Path, world: int, plans: tuple[dict, ...]) -> None:
    """One process begins, several go on under one plan after the other, one process ends."""
    steps = EACH * (len(plans) + 2)
    go_on(folder / "changing", EACH, steps, {})
    run_ranks(go_through, world, folder / "changing", steps, plans)
    go_on(folder / "changing", steps, steps, {})
    go_on(folder / "one", steps, steps, {})
    changing, one = read_metrics(folder / "changing"), read_metrics(folder / "one")
    assert [row["step"] for row in changing] == [row["step"] for row in one] == list(range(1, steps + 1))
    for ours, alone in zip(changing, one, strict=True):
        for key in ("loss", "grad_norm", "router_loss", "multi_token_loss"):
            assert ours[key] == pytest.approx(alone[key], rel=1e-5), (ours["step"], key)
        assert ours["tokens"] == alone["tokens"]


def test_a_run_that_changes_its_plan_keeps_its_curve(tmp_path):
    assert_same_curve(tmp_path, 2, FEW)


@pytest.mark.matrix
@pytest.mark.parametrize(("world", "plans"), [(2, MORE), (4, OF_FOUR)])
def test_more_changes_of_plan_keep_the_curve(tmp_path, world, plans):
    assert_same_curve(tmp_path, world, plans)


@pytest.mark.matrix
def test_killed_twenty_times_at_random_moments_is_undisturbed_bit_for_bit(tmp_path):
    hit, differs = killed_and_calm(tmp_path, 20, 120, 2, Parallel(shard=2), seed=time.time_ns())
    assert hit >= 18
    assert not differs
