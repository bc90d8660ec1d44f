"""Several processes: numbers that are not finite on one of them, a slow one, one that hangs; RMSProp and float8 over
shards."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessExitedException

import glassbox.train.precision as precision
from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.tokens.order import ALL, Share
from glassbox.train import checkpoint, storage
from glassbox.train.float8 import compute_in_float8
from glassbox.train.loop import fit, steady
from tests.train.conftest import build, counting_rows
from tests.train.parallel.ranks import run_ranks
from tests.train.test_events import objective

STEPS = 6
RMSPROP = Optimizer(name="rmsprop", lr=0.003, betas=(0.9, 0.99))


def tainted(bad: int | None):
    """The first row of one step of the data makes the loss NaN: only the process that reads it sees it by itself."""

    def batch_at(step: int, share: Share):
        factor = np.ones(6)
        if step == bad:
            factor[0] = float("nan")
        return counting_rows(step, share) | {"factor": factor[share.of(6)]}

    return batch_at


def run(folder: Path, batch_at, optimizer: Optimizer, **settings) -> list[dict]:
    """Train in `folder`; the events."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    folder.mkdir(exist_ok=True, parents=True)
    events: list[dict] = []
    fit(
        build(experts=False),
        batch_at,
        objective,
        steps=STEPS,
        course=steady(optimizer, Schedule(shape="constant", warmup=0), STEPS),
        loop=Loop(**{"micro_rows": 6, "checkpoint_every": 2, "log_every": 2} | settings),
        workspace=Workspace(folder, rank=rank, on_event=events.append),
    )
    return events


def final(folder: Path) -> dict[str, torch.Tensor]:
    tensors = checkpoint.whole_tensors(checkpoint.newest(folder / "checkpoints"))
    return {name: tensors.read(name) for name in tensors.entries}


def sleepy(step: int, share: Share):
    """The second process takes its time in the third and fourth step."""
    if share.index == 1 and step in (2, 3):
        time.sleep(0.4)
    return tainted(None)(step, share)


POLICIES = {
    "slow": ({}, RMSPROP, sleepy),
    "skip": ({"nonfinite": "skip"}, Optimizer(lr=0.01), tainted(3)),
    "rewind": ({"nonfinite": "rewind"}, Optimizer(lr=0.01), tainted(3)),
}


def in_float8(folder: Path) -> None:
    """A run whose products are emulated float8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "refusal", lambda device: None)
        patch.setattr(precision, "compute_in_float8", partial(compute_in_float8, emulate=True))
        run(folder, tainted(None), Optimizer(lr=0.01), precision="float8", micro_rows=3)


def on_a_full_disk(folder: Path) -> None:
    """The second process cannot write, and the first one's thread is late to hear of it: both stop at the same step."""
    first = torch.distributed.get_rank() == 0

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def late(work, group):
        try:
            return storage.together(work, group)
        finally:
            time.sleep(0.5 * first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "together", late)
        if not first:
            patch.setattr(storage, "write_file", full)
        with pytest.raises(GlassboxError, match=r"could not write the checkpoint.*No space left"):
            run(folder, tainted(None), Optimizer(lr=0.01))


def all_policies(folder: Path) -> None:
    on_a_full_disk(folder / "full")
    in_float8(folder / "float8")
    for name, (safety, optimizer, batch_at) in POLICIES.items():
        events = run(folder / name, batch_at, optimizer, safety=safety)
        if torch.distributed.get_rank() == 0:
            (folder / f"{name}.json").write_text(json.dumps(events))
        else:
            assert not events


def test_two_processes_decide_alike_and_name_the_slow_one(tmp_path):
    """Each policy gives what it gives one process; what RMSProp gives does not depend on the shards."""
    run_ranks(all_policies, 2, tmp_path)
    events = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in POLICIES}
    for name, (safety, optimizer, batch_at) in POLICIES.items():
        alone = run(tmp_path / "alone" / name, batch_at, optimizer, safety=safety)
        assert len(events[name]) == 1
        assert name == "slow" or events[name] == alone
        theirs = final(tmp_path / name)
        for tensor, value in final(tmp_path / "alone" / name).items():
            torch.testing.assert_close(theirs[tensor], value, atol=2e-5, rtol=1e-4, msg=f"{name} {tensor}")
    in_float8(tmp_path / "alone" / "float8")
    losses = [[row["loss"] for row in read_metrics(folder / "float8")] for folder in (tmp_path, tmp_path / "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    (event,) = events["slow"]
    assert (event["what"], event["rank"], event["step"]) == ("slow process", 1, 4)
    assert event["host"]


def hanging(folder: Path) -> None:
    def batch_at(step: int, share: Share = ALL):
        if step == 3 and share.index == 1:
            time.sleep(600)
        return tainted(None)(step, share)

    run(folder, batch_at, RMSPROP, safety={"watchdog": 4})


@pytest.mark.matrix
def test_processes_that_hang_say_where_and_the_next_attempt_goes_on(tmp_path):
    with pytest.raises(ProcessExitedException):
        run_ranks(hanging, 2, tmp_path)
    stacks = {path.name: path.read_text() for path in tmp_path.glob("stacks-rank-*.txt")}
    assert any("batch_at" in text or "accumulate" in text for text in stacks.values())
    hung = sum(bool(text) for text in stacks.values())
    events = run(tmp_path, tainted(None), RMSPROP)
    assert events == [{"what": "hang", "stacks": "hang-1-rank-*.txt", "processes": hung}]
    assert (tmp_path / "checkpoints" / f"step-{STEPS:09d}").is_dir()
