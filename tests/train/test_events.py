"""A run goes through spikes, numbers that are not finite and failing trackers as its settings say, to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.tokens.order import ALL, Share
from glassbox.train import checkpoint
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.optimizer import build_optimizer, set_rates
from glassbox.train.parallel.place import Placed, clip_gradients
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from tests.train.conftest import build, counting_rows
from tests.train.test_loop import assert_same_weights

STEPS = 8
COURSE = steady(Optimizer(lr=0.01), Schedule(shape="cosine"), STEPS)
SPIKES = {"spike": 6.0, "window": 4}


@pytest.fixture(autouse=True)
def _no_measurement_of_the_peak(monkeypatch):
    monkeypatch.setattr("glassbox.train.meter.peak_flops", lambda device, dtype: 1e9)


def tainted(factors: dict[int, float], seen: list[int] | None = None):
    """Batches whose loss is multiplied by a factor in some steps of the data; `seen` gets the steps that are read."""

    def batch_at(step: int, share: Share = ALL):
        if seen is not None:
            seen.append(step)
        batch = counting_rows(step, share)
        return batch | {"factor": np.full(len(batch["ids"]), factors.get(step, 1.0))}

    return batch_at


def objective(output, head_VD, rows):
    loss, metrics = next_token(output, head_VD, rows)
    return loss * rows["factor"].max(), metrics


def run(folder: Path, batch_at, safety: dict, events: list[dict] | None = None, **settings):
    folder.mkdir(exist_ok=True)
    model = build(experts=False)
    loop = Loop(**{"micro_rows": 6, "checkpoint_every": 3, "log_every": 1, "safety": safety} | settings)
    workspace = Workspace(folder, on_event=None if events is None else events.append)
    progress = fit(model, batch_at, objective, steps=STEPS, course=COURSE, loop=loop, workspace=workspace)
    return model, progress


def by_hand(data_steps: list[int | None], factors: dict[int, float]):
    """The model after updates on the given steps of the data; None: no update."""
    model, batch_at = build(experts=False), tainted(factors)
    placed = Placed([model])
    adamw = build_optimizer(placed, COURSE(0).optimizer)
    for step, data in enumerate(data_steps):
        if data is None:
            continue
        rows = to_rows(batch_at(data))
        accumulate(placed, rows, objective, labelled_tokens(rows), 6, COURSE(step).beside)
        clip_gradients(placed, 1.0)
        set_rates(adamw, COURSE(step).lr, COURSE(step).optimizer)
        adamw.step()
        adamw.zero_grad()
    return model


@pytest.mark.parametrize(
    ("factor", "safety"),
    [(float("nan"), {"nonfinite": "skip"}), (float("inf"), {"nonfinite": "skip"}), (50.0, SPIKES)],
)
def test_a_skipped_step_counts_and_changes_nothing(tmp_path, factor, safety):
    events: list[dict] = []
    model, progress = run(tmp_path, tainted({5: factor}), safety, events)
    assert_same_weights(model, by_hand([0, 1, 2, 3, 4, None, 6, 7], {}))
    assert (progress.step, progress.events) == (STEPS, [5])
    assert progress.tokens == STEPS * (6 * 40 - 3 * 7)
    assert [(event["step"], event["done"]) for event in events] == [(6, "skip")]
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, STEPS + 1))


def test_a_warning_changes_nothing(tmp_path):
    events: list[dict] = []
    model, _ = run(tmp_path, tainted({5: 50.0}), SPIKES | {"on_spike": "warn"}, events)
    assert_same_weights(model, by_hand(list(range(STEPS)), {5: 50.0}))
    assert [(event["what"], event["done"]) for event in events] == [("spike", "warn")]


@pytest.mark.parametrize(
    ("bad", "replaced", "read"),
    [
        (5, [[3, 6]], [0, 1, 2, 11, 12, 13, 6, 7]),
        (3, [[3, 4]], [0, 1, 2, 11, 4, 5, 6, 7]),  # the first step after a checkpoint
        (1, [[0, 2]], [8, 9, 2, 3, 4, 5, 6, 7]),  # before there is any but the one of the start
    ],
)
def test_a_rewound_run_reads_other_data_since_the_last_checkpoint(tmp_path, bad, replaced, read):
    events: list[dict] = []
    model, progress = run(tmp_path, tainted({bad: float("nan")}), {"nonfinite": "rewind"}, events)
    assert progress.replaced == replaced
    assert_same_weights(model, by_hand(read, {}))
    assert [(event["what"], event["step"], event["done"]) for event in events] == [("not finite", bad + 1, "rewind")]
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["tokens"] == STEPS * (6 * 40 - 3 * 7)


def test_what_replaces_bad_data_may_be_bad_too(tmp_path):
    """A spike and a number that is not finite, each gone back from; the stretches lie over each other."""
    safety = SPIKES | {"on_spike": "rewind", "nonfinite": "rewind"}
    model, progress = run(tmp_path, tainted({5: 60.0, 12: float("inf")}), safety)
    assert progress.replaced == [[3, 6], [3, 5]]
    assert_same_weights(model, by_hand([0, 1, 2, 3 + 16, 4 + 16, 5 + 8, 6, 7], {}))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before the fact is kept", "after it"])
def test_a_kill_in_a_rewind_changes_nothing(tmp_path, monkeypatch, moment):
    bad = {5: float("nan")}
    whole, _ = run(tmp_path / "whole", tainted(bad), {"nonfinite": "rewind"})

    def killed(step: int, share: Share = ALL):
        if step > STEPS:
            raise Killed
        return tainted(bad)(step, share)

    def killed_too(*arguments):
        raise Killed

    events: list[dict] = []
    if moment != "after it":
        monkeypatch.setattr(checkpoint, "amend", killed_too)
    with pytest.raises(Killed):
        run(tmp_path / "parts", killed, {"nonfinite": "rewind"}, events)
    monkeypatch.undo()
    assert len(events) == 1
    seen: list[int] = []
    parts, progress = run(tmp_path / "parts", tainted(bad, seen), {"nonfinite": "rewind"}, events)
    assert_same_weights(whole, parts)
    assert (progress.replaced, progress.events) == ([[3, 6]], [5])
    if moment == "after it":
        assert seen == [11, 12, 13, 6, 7]  # the bad data is not read again
        assert len(events) == 1
    else:
        assert seen == [3, 4, 5, 11, 12, 13, 6, 7]


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_run_that_does_not_recover_stops(tmp_path, policy):
    events: list[dict] = []
    bad = {step: float("nan") for step in range(4, 1000)}
    with pytest.raises(GlassboxError, match=r"training stopped at step .*more than 2 spikes or numbers"):
        run(tmp_path, tainted(bad), {"nonfinite": policy, "limit": 2}, events)
    assert [event["done"] for event in events] == [policy, policy, "stop"]


def test_a_stop_can_go_on_with_another_policy(tmp_path):
    bad = {5: float("nan")}
    with pytest.raises(GlassboxError, match="diverged at step 6"):
        run(tmp_path, tainted(bad), {})
    model, _ = run(tmp_path, tainted(bad), {"nonfinite": "skip"})
    assert_same_weights(model, by_hand([0, 1, 2, 3, 4, None, 6, 7], {}))


def test_what_spikes_are_measured_against_survives_a_resume(tmp_path):
    """Stopped after a step, a run still tells the spike that comes next."""
    events: list[dict] = []

    def killed(step: int, share: Share = ALL):
        if step == 6:
            raise Killed
        return tainted({})(step, share)

    with pytest.raises(Killed):
        run(tmp_path, killed, SPIKES, events, checkpoint_every=5)
    _, progress = run(tmp_path, tainted({6: 50.0}), SPIKES, events, checkpoint_every=5)
    assert [(event["what"], event["step"]) for event in events] == [("spike", 7)]
    assert len(progress.recent) == 4


def test_training_goes_on_without_its_tracker(tmp_path, monkeypatch):
    torch_tracker = pytest.importorskip("torch.utils.tensorboard")

    def full(*arguments, **named):
        raise OSError("No space left on device")

    events: list[dict] = []
    monkeypatch.setattr(torch_tracker.SummaryWriter, "add_scalar", full)
    model, _ = run(tmp_path, tainted({}), {}, events, trackers=["tensorboard"])
    assert_same_weights(model, by_hand(list(range(STEPS)), {}))
    assert [(event["what"], event["tracker"]) for event in events] == [("tracker failed", "tensorboard")]
    assert json.dumps(events)  # as the ledger keeps them
    assert torch.isfinite(torch.tensor([row["loss"] for row in read_metrics(tmp_path)])).all()
