"""Every plan's loss curve and gradient norms equal one process's.

`pytest -m matrix` runs the plans that are left out of the default run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop, Parallel
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.tokens.order import Share
from glassbox.train.evaluation import logprobs_of_labels, measure
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.parallel.place import Placed
from glassbox.train.step import Beside
from tests.train.parallel.ranks import run_ranks

VOCABULARY, STEPS, ROWS, CONTEXT = 61, 32, 8, 32

DENSE = Network(dim=32, layers=4, hidden=48, attention=Attention(heads=4, kv_heads=2, window=20), init_std=0.1)
BIASED = DENSE.model_copy(update={"attention": Attention(heads=4, kv_heads=4, bias=True, qk_norm="head")})
EXPERTS = Network(
    dim=32,
    layers=2,
    hidden=48,
    attention=Attention(heads=4, kv_heads=2),
    experts=Experts(
        count=8, top_k=2, hidden=16, shared=1, first_dense=1, score="sigmoid", score_bias=True, sequence_loss=1e-3
    ),
    multi_token=MultiToken(depth=1),
    tie_embeddings=True,
    init_std=0.1,
)
DEEPER = EXPERTS.model_copy(update={"layers": 5})
OVERLAP = {"pipeline": 2, "shard": 2, "expert": 2, "schedule": "DualPipeV", "zero": 2, "overlap": True}
OLMOE = Network(
    dim=32,
    layers=2,
    attention=Attention(heads=4, kv_heads=4, qk_norm="whole"),
    experts=Experts(count=4, top_k=2, hidden=16),
    init_std=0.1,
)


@dataclass
class Case:
    """A plan on a network."""

    world: int
    network: Network
    plan: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS
    precision: str = "fp32"
    recompute: str = "none"


CASES = {
    "expert 2": Case(2, EXPERTS, {"shard": 2, "expert": 2}, rows=4),
    "tensor 2": Case(2, BIASED, {"tensor": 2}, rows=2),
    "context 2": Case(2, EXPERTS, {"context": 2}, rows=2),
    "rows that do not divide": Case(2, EXPERTS, {"shard": 2}, rows=5),  # one has a micro-batch of padding
    "pipeline 2": Case(2, EXPERTS, {"pipeline": 2}, rows=4),
}
MORE = {
    "shard 2, experts": Case(2, EXPERTS, {"shard": 2}),
    "shard 4": Case(4, DENSE, {"shard": 4}),
    "shard 4, zero 2": Case(4, EXPERTS, {"shard": 4, "zero": 2}),
    "shard 2, zero 1": Case(2, EXPERTS, {"shard": 2, "zero": 1}),
    "replicate 2 shard 2": Case(4, EXPERTS, {"replicate": 2, "shard": 2}),
    "replicate 2": Case(2, DENSE, {"replicate": 2}),
    "expert 4": Case(4, EXPERTS, {"shard": 4, "expert": 4}),
    "expert 4, OLMoE": Case(4, OLMOE, {"shard": 4, "expert": 4}),
    "tensor 2, experts": Case(2, EXPERTS, {"tensor": 2}),
    "context 2, dense": Case(2, DENSE, {"context": 2}),
    "context 2, OLMoE": Case(2, OLMOE, {"context": 2}),
    "shard 2 tensor 2": Case(4, DENSE, {"shard": 2, "tensor": 2}),
    "context 2 tensor 2": Case(4, BIASED, {"context": 2, "tensor": 2}),
    "shard 2 context 2 expert 2": Case(4, EXPERTS, {"shard": 2, "context": 2, "expert": 2}),
    "shard 4 expert 2": Case(4, EXPERTS, {"shard": 4, "expert": 2}),
    "shard 2 expert 2 tensor 2": Case(4, EXPERTS, {"shard": 2, "expert": 2, "tensor": 2}),
    "replicate 2 shard 2 expert 2": Case(4, EXPERTS, {"replicate": 2, "shard": 2, "expert": 2}),
    "shard 2, recomputed": Case(2, EXPERTS, {"shard": 2}, recompute="full"),
    "tensor 2, recomputed": Case(2, DENSE, {"tensor": 2}, recompute="selective"),
    **{
        f"pipeline 2, {schedule}": Case(2, DEEPER, {"pipeline": 2, "schedule": schedule, "zero": 2})
        for schedule in ("1F1B", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
    },
    "pipeline 2, recomputed": Case(
        2, DEEPER, {"pipeline": 2, "schedule": "ZBVZeroBubble", "zero": 2}, recompute="full"
    ),
    "pipeline 2 shard 2": Case(4, EXPERTS, {"pipeline": 2, "shard": 2}),
    "pipeline 2 tensor 2": Case(4, DENSE, {"pipeline": 2, "tensor": 2, "schedule": "Interleaved1F1B"}),
    "pipeline 2 expert 2, overlap": Case(4, DEEPER, OVERLAP),
}


def rows_of(step: int, share: Share, rows: int) -> dict[str, np.ndarray]:
    """Packed rows: tokens that count up by one or two, two documents a row, some padding."""
    random = np.random.default_rng(step)
    start, stride = random.integers(0, VOCABULARY, (rows, 1)), random.integers(1, 3, (rows, 1))
    column = np.arange(CONTEXT)
    cut = random.integers(5, CONTEXT - 8, (rows, 1))
    documents = np.where(column >= cut, 1, 0)
    documents[::3, CONTEXT - 5 :] = -1
    positions = np.where(column >= cut, column - cut, column)
    ids = (start + stride * column) % VOCABULARY
    labels = np.where((documents < 0) | (positions == 0), -100, ids)
    batch = {"ids": ids, "labels": labels, "documents": documents, "positions": np.broadcast_to(positions, ids.shape)}
    return {name: value[list(share.of(rows))] for name, value in batch.items()}


def train(folder: Path, case: Case, steps: int = STEPS) -> None:
    """A run of `steps` under the case's plan; the curve is in the folder's metrics."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    folder.mkdir(parents=True, exist_ok=True)
    model = Transformer(case.network, VOCABULARY)
    model.init_weights(3)
    everything = Share()

    def evaluate(placed: Placed, step: int) -> dict[str, float]:
        batch = rows_of(999, everything, 6)
        found = measure(placed, batch, 2)
        logprobs = logprobs_of_labels(placed, batch, 2)
        return {"nats": found.nats, "counted": found.tokens, "logprob": float(logprobs[2, 3:9].sum())}

    parallel = Parallel(**case.plan) if dist.is_initialized() else Parallel()
    fit(
        model,
        lambda step, share: rows_of(step, share, case.rows),
        next_token,
        steps=steps,
        course=steady(Optimizer(lr=5e-3, clip=0.5), Schedule(warmup=0.1), steps, Beside(True, 0.3, 1e-3)),
        loop=Loop(
            micro_rows=2,
            parallel=parallel,
            recompute=case.recompute,
            log_every=1,
            evaluate_every=16,
            checkpoint_every=1000,
            precision=case.precision,
        ),
        workspace=Workspace(folder, rank=rank),
        evaluate=evaluate,
    )


def train_all(folder: Path, names: list[str]) -> None:
    for name in names:
        train(folder / name, (CASES | MORE)[name])


def assert_same_curves(folder: Path, cases: dict[str, Case]) -> None:
    for world in {case.world for case in cases.values()}:
        run_ranks(train_all, world, folder / "spread", [name for name, case in cases.items() if case.world == world])
    for name, case in cases.items():
        train(folder / "alone" / name, case)
        ours, alone = read_metrics(folder / "spread" / name), read_metrics(folder / "alone" / name)
        assert [row["step"] for row in ours] == [row["step"] for row in alone], name
        compared = 0
        for one, other in zip(ours, alone, strict=True):
            for key in {
                "loss",
                "grad_norm",
                "router_loss",
                "multi_token_loss",
                "nats",
                "logprob",
                "counted",
            } & one.keys():
                assert one[key] == pytest.approx(other[key], rel=1e-5), (name, one["step"], key)
                compared += 1
            if "expert_load_max_over_mean" in one:
                assert one["expert_load_max_over_mean"] == other["expert_load_max_over_mean"], (name, one["step"])
            if "tokens" in one:
                assert one["tokens"] == other["tokens"]
        assert compared >= 2 * STEPS


def test_curves_of_two_processes_equal_one(tmp_path):
    assert_same_curves(tmp_path, CASES)


@pytest.mark.matrix
@pytest.mark.parametrize("world", [2, 4])
def test_curves_of_more_plans_equal_one(tmp_path, world):
    assert_same_curves(tmp_path, {name: case for name, case in MORE.items() if case.world == world})
