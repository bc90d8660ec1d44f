"""Metrics reach the trackers; whatever goes wrong there is one event, and nothing else."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

import glassbox.train.trackers as trackers_module
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.train.trackers import Trackers, tracking


@pytest.fixture
def seen(tmp_path):
    return []


@pytest.fixture
def workspace(tmp_path, seen):
    return Workspace(tmp_path, on_event=seen.append)


def test_tensorboard_holds_what_was_written(workspace, seen, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 4), (2, 5)):  # the second attempt goes on from step 2
        trackers = Trackers(("tensorboard",), workspace, first)
        for step in range(first + 1, last + 1):
            trackers.write(step, {"loss": 1.0 / step + first, "name": "not a number"})
        trackers.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert found.Tags()["scalars"] == ["loss"]
    values = {event.step: event.value for event in found.Scalars("loss")}
    assert values == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3 + 2, 4: 2.25, 5: 2.2})
    assert not seen


class FakeRun:
    def __init__(self, fails_at: int = -1, finish=lambda: None):
        self.rows, self.fails_at, self.finish = [], fails_at, finish

    def define_metric(self, *names, **settings): ...

    def log(self, values):
        if values["step"] == self.fails_at:
            raise ConnectionError("network is\n unreachable")
        self.rows.append(values)


def fake_wandb(monkeypatch, init):
    module = ModuleType("wandb")
    module.init, module.Settings = init, SimpleNamespace
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_wandb_is_one_run_over_all_attempts(monkeypatch, workspace, seen):
    runs, opened = [FakeRun(), FakeRun()], []
    fake_wandb(monkeypatch, lambda **settings: opened.append(settings) or runs[len(opened) - 1])
    for step in range(2):
        trackers = Trackers(("wandb",), workspace, step)
        trackers.write(step + 1, {"loss": 2.0})
        trackers.close()
    assert [run.rows for run in runs] == [[{"loss": 2.0, "step": 1}], [{"loss": 2.0, "step": 2}]]
    assert opened[0]["id"] == opened[1]["id"]
    assert not seen


def test_every_metric_of_a_stage_is_handed_on(monkeypatch, workspace, tmp_path):
    run = FakeRun()
    fake_wandb(monkeypatch, lambda **settings: run)
    with tracking(("wandb",), workspace, 0):
        workspace.metric(1, loss=2.0)
    workspace.metric(2, loss=1.0)
    other = Workspace(tmp_path, rank=1)
    with tracking(("wandb",), other, 0):
        other.metric(1, loss=9.0)
    assert run.rows == [{"loss": 2.0, "step": 1}]
    assert [row["loss"] for row in read_metrics(tmp_path)] == [2.0, 1.0]


def test_one_that_is_not_installed_is_dropped(monkeypatch, workspace, seen):
    monkeypatch.setitem(sys.modules, "wandb", None)
    trackers = Trackers(("wandb",), workspace, 0)
    trackers.write(1, {"loss": 1.0})
    trackers.close()
    (event,) = seen
    assert (event["what"], event["tracker"]) == ("tracker failed", "wandb")
    assert "ModuleNotFoundError" in event["error"]


def test_one_that_fails_on_the_way_is_dropped_once(monkeypatch, workspace, seen):
    run = FakeRun(fails_at=3)
    fake_wandb(monkeypatch, lambda **settings: run)
    trackers = Trackers(("wandb",), workspace, 0)
    for step in range(1, 6):
        trackers.write(step, {"loss": 1.0})
    trackers.close()
    assert [row["step"] for row in run.rows] == [1, 2]
    assert [event["error"] for event in seen] == ["ConnectionError: network is unreachable"]


def test_one_that_does_not_finish_is_left_behind(monkeypatch, workspace, seen):
    import threading

    never = threading.Event()
    monkeypatch.setattr(trackers_module, "PATIENCE", 0.05)
    fake_wandb(monkeypatch, lambda **settings: FakeRun(finish=never.wait))
    Trackers(("wandb",), workspace, 0).close()
    never.set()
    assert ["not finished" in event["error"] for event in seen] == [True]


def test_one_that_fails_to_finish_is_no_error(monkeypatch, workspace, seen):
    def broken():
        raise OSError("disk quota exceeded")

    fake_wandb(monkeypatch, lambda **settings: FakeRun(finish=broken))
    Trackers(("wandb",), workspace, 0).close()
    assert [event["error"] for event in seen] == ["OSError: disk quota exceeded"]
