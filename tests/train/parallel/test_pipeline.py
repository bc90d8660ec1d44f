"""Every pipeline schedule gives one process's loss, gradients and held-out measures.

`pytest -m matrix` runs what is left out of the default run.
"""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist

from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Parallel
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.train.evaluation import logprobs_of_labels, measure
from glassbox.train.losses import next_token
from glassbox.train.parallel import overlap
from glassbox.train.parallel.place import Placed, clip_gradients, place, sum_over_columns
from glassbox.train.rows import Rows, labelled_tokens, to_rows
from glassbox.train.step import Beside, StepResult, accumulate
from tests.train.parallel.ranks import run_ranks

VOCABULARY, CONTEXT = 61, 24
SCHEDULES = ("1F1B", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")

DENSE = Network(dim=32, layers=5, hidden=48, attention=Attention(heads=4, kv_heads=2), init_std=0.1)
TIED = DENSE.model_copy(update={"tie_embeddings": True})
EXPERTS = Network(
    dim=32,
    layers=5,
    hidden=48,
    attention=Attention(heads=4, kv_heads=2, qk_norm="head"),
    experts=Experts(count=4, top_k=2, hidden=16, shared=1, first_dense=1, sequence_loss=1e-2),
    init_std=0.1,
)
AHEAD = EXPERTS.model_copy(update={"multi_token": MultiToken(depth=2), "tie_embeddings": True})
UNTIED_AHEAD = DENSE.model_copy(update={"multi_token": MultiToken(depth=1)})
NETWORKS = {"dense": DENSE, "tied": TIED, "experts": EXPERTS, "ahead": AHEAD, "untied ahead": UNTIED_AHEAD}
NETWORKS["deep experts"] = AHEAD.model_copy(update={"layers": 8})


def rows_of(rows: int) -> Rows:
    """Packed rows, two documents and some padding in each."""
    random = np.random.default_rng(rows)
    ids = random.integers(0, VOCABULARY, (rows, CONTEXT))
    column = np.arange(CONTEXT)
    cut = random.integers(5, CONTEXT - 8, (rows, 1))
    documents = np.where(column >= cut, 1, 0)
    documents[::3, CONTEXT - 5 :] = -1
    positions = np.where(column >= cut, column - cut, column)
    labels = np.where((documents < 0) | (positions == 0), -100, ids)
    return to_rows({"ids": ids, "labels": labels, "documents": documents, "positions": positions})


def built(network: Network, dtype: torch.dtype) -> Transformer:
    model = Transformer(network, VOCABULARY)
    model.compute_dtype = dtype
    model.init_weights(3)
    return model


def step(placed: Placed, rows: Rows, micro_rows: int, beside: Beside, scale: float = 1.0) -> StepResult:
    return accumulate(placed, rows, next_token, labelled_tokens(rows), micro_rows, beside, scale)


def norm_of(placed: Placed) -> float:
    return float(torch.nn.utils.get_total_norm([p.grad for _, p in placed.parameters() if p.grad is not None]))


def assert_same(found: Placed, result: StepResult, alone: Placed, expected: StepResult, note: Any) -> None:
    """Loss, metrics, loads, and every gradient as far as it is held here; together the processes hold all of them."""
    assert result.loss == pytest.approx(expected.loss, rel=1e-5), note
    assert result.metrics.keys() == expected.metrics.keys(), note
    for name, value in expected.metrics.items():
        assert result.metrics[name] == pytest.approx(value, rel=1e-5), (note, name)
    if expected.load_LE is not None:
        assert torch.equal(result.load_LE, expected.load_LE), note
    wanted = {name: parameter.grad for name, parameter in alone.parameters() if parameter.grad is not None}
    held = set[str]()
    for name, parameter in found.parameters():
        assert parameter.grad is not None, (note, name)
        here, extent = found.held(name, parameter.grad)
        whole = wanted.get(name, torch.zeros(extent.shape))
        for block in extent.blocks():
            difference = float((block.of(here) - block.of_whole(whole)).abs().max())
            assert difference <= 1e-5 * float(whole.abs().max()), (note, name, difference)
        held |= {name} & wanted.keys()
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, held)
    assert set().union(*everyone) == wanted.keys(), note


def assert_same_measures(found: Placed, alone: Placed, note: Any) -> None:
    """Held-out measures run forward alone."""
    rows = rows_of(5)
    measured, expected = measure(found, rows, 2), measure(alone, rows, 2)
    assert measured.nats == pytest.approx(expected.nats, rel=1e-5), note
    assert measured.tokens == expected.tokens, note
    if found.ranks.columns.count == 1:
        assert (measured.accepted, measured.drafted) == (expected.accepted, expected.drafted), note
    torch.testing.assert_close(logprobs_of_labels(found, rows, 2), logprobs_of_labels(alone, rows, 2))


def assert_as_alone(cases: list[tuple[str, str, int]], dtype: torch.dtype = torch.float32, **plan: int) -> None:
    """Each case: a network, a schedule, rows (two sequences a micro-batch)."""
    for network, schedule, count in cases:
        rows, beside, note = rows_of(count), Beside(True, 0.3, 1e-3), (network, schedule, count, plan)
        alone = Placed([built(NETWORKS[network], dtype)])
        expected = step(alone, rows, 2, beside)
        parallel = Parallel.model_validate({"pipeline": 2, "schedule": schedule, "zero": 2} | plan)
        found = place(built(NETWORKS[network], dtype), parallel, "cpu")
        mine = {name: value[list(found.ranks.share.of(count))] for name, value in rows.items()}
        for scale in (8.0, 1.0):
            for _, parameter in found.parameters():
                parameter.grad = None
            result = step(found, mine, 2, beside, scale)
            sum_over_columns(found)
            assert_same(found, result, alone, expected, (*note, scale))
            assert clip_gradients(found, 1e9) == pytest.approx(norm_of(alone), rel=1e-5), note
        assert_same_measures(found, alone, note)


def assert_every_schedule() -> None:
    assert_as_alone([("ahead", schedule, 9) for schedule in SCHEDULES])
    assert_as_alone([("experts", "InterleavedZeroBubble", 2)])
    assert_as_alone([("dense", "1F1B", 9), ("experts", "ZBVZeroBubble", 9)], torch.bfloat16)


def test_every_schedule_gives_one_processs_gradients():
    run_ranks(assert_every_schedule, 2)


def assert_every_network() -> None:
    for network in ("dense", "tied", "experts", "untied ahead"):
        assert_as_alone([(network, schedule, 9) for schedule in SCHEDULES])
    assert_as_alone([("experts", schedule, 2) for schedule in SCHEDULES])


@pytest.mark.matrix
def test_on_every_network():
    run_ranks(assert_every_network, 2)


def assert_mixed_plans() -> None:
    assert_as_alone([("deep experts", schedule, 13) for schedule in SCHEDULES], pipeline=4)
    assert_as_alone([("experts", schedule, 8) for schedule in ("1F1B", "ZBVZeroBubble")], shard=2)
    assert_as_alone(
        [("experts", schedule, 8) for schedule in ("InterleavedZeroBubble", "DualPipeV")], shard=2, expert=2
    )
    assert_as_alone([("ahead", schedule, 8) for schedule in ("Interleaved1F1B", "ZBVZeroBubble")], tensor=2)
    assert_as_alone([("ahead", "1F1B", 8), ("dense", "Interleaved1F1B", 7)], shard=2, zero=3)
    assert_as_alone([("dense", "ZBVZeroBubble", 7)], replicate=2)
    assert_as_alone([("experts", "DualPipeV", 7)], context=2)


def assert_overlapping_plans() -> None:
    for schedule in ("DualPipeV", "Interleaved1F1B"):
        assert_as_alone([("experts", schedule, 16), ("ahead", schedule, 24)], shard=2, expert=2, overlap=True)
    assert_as_alone([("experts", "Interleaved1F1B", 16)], shard=2, expert=2, overlap=True, zero=3)
    assert_exchanges_run_under_computation()


def assert_exchanges_run_under_computation() -> None:
    """In the slots of a schedule with two passes, other pieces are computed between an exchange's start and its end."""
    log: list[str] = []
    travel, run = overlap.travel, overlap.Tape.run

    def logged_travel(*arguments: Any) -> Any:
        steps = travel(*arguments)
        next(steps)
        log.append(f"start {id(steps)}")
        yield
        log.append(f"end {id(steps)}")
        try:
            next(steps)
        except StopIteration as end:
            return end.value

    def logged_run(self: overlap.Tape, *arguments: Any) -> Any:
        log.append("piece")
        return run(self, *arguments)

    with patch.object(overlap, "travel", logged_travel), patch.object(overlap.Tape, "run", logged_run):
        assert_as_alone([("experts", "DualPipeV", 24)], shard=2, expert=2, overlap=True)
    ends = [at for at, event in enumerate(log) if event.startswith("end")]
    covered = [
        at for at in ends if any(event != "piece" for event in log[log.index(log[at].replace("end", "start")) : at])
    ]
    assert len(covered) >= 0.4 * len(ends)


@pytest.mark.matrix
def test_pipelines_of_four_processes_and_together_with_every_other_dimension():
    run_ranks(assert_mixed_plans, 4)


@pytest.mark.matrix
def test_overlap_gives_the_same_gradients_and_covers_exchanges():
    run_ranks(assert_overlapping_plans, 4)
