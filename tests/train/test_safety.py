"""Spikes are told as OLMo's skip-step optimizer tells them, and each policy does what it says."""

import numpy as np
import pytest
import torch

from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Workspace
from glassbox.recipe.base import identity
from glassbox.recipe.loop import Safety
from glassbox.train.checkpoint import Progress
from glassbox.train.safety import judge, remember, respond, rewound

SPIKES = Safety(spike=6.0, window=16)


def factor_of_olmo(losses: list[float], norms: list[float], window: int, sigma: float) -> bool:
    """Whether OLMo-core's skip-step optimizer makes the step, from all values so far, the step's own last."""
    losses, norms = losses[-window - 1 :], norms[-window - 1 :]
    if len(losses) - 1 < max(2, window // 2):
        return True
    loss_std, loss_mean = torch.std_mean(torch.tensor(losses[:-1], dtype=torch.float64))
    norm_std, norm_mean = torch.std_mean(torch.tensor(norms[:-1], dtype=torch.float64))
    return bool(losses[-1] - loss_mean <= sigma * loss_std and norms[-1] - norm_mean <= sigma * norm_std)


def test_spikes_are_olmos():
    draws = np.random.default_rng(0)
    losses, norms = draws.normal(3, 0.1, 300), draws.normal(1, 0.05, 300)
    losses[[9, 60, 61, 200]] += 2.0
    norms[[100, 220]] += 3.0
    losses[250:] += 5.0  # a level that stays
    progress, found, theirs = Progress(), [], []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if judge(progress.recent, loss, norm, SPIKES) == "spike":
            found.append(step)
        if not factor_of_olmo(list(losses[: step + 1]), list(norms[: step + 1]), 16, 6.0):
            theirs.append(step)
        remember(progress, loss, norm, SPIKES)
    assert found == theirs
    assert {60, 100, 200, 220, 250} <= set(found)
    assert max(found) < 255  # the window has taken the new level in
    assert len(progress.recent) == 16


def test_what_is_no_spike():
    level = [[3.0 + 0.1 * (i % 2), 1.0] for i in range(16)]
    assert judge(level, 30.0, 1.0, SPIKES) == "spike"
    assert judge(level, 0.1, 1.0, SPIKES) == "fine"  # a fall
    assert judge(level[:7], 30.0, 1.0, SPIKES) == "fine"  # half a window is not there yet
    assert judge(level, 30.0, 1.0, Safety()) == "fine"  # not looked for
    assert judge([[3.0, 1.0]] * 16, 3.1, 1.0, SPIKES) == "fine"  # nothing to measure against
    for value in (float("nan"), float("inf")):
        assert judge([], value, 1.0, Safety()) == judge([], 1.0, value, Safety()) == "not finite"


def test_what_is_not_finite_enters_no_window():
    progress = Progress()
    remember(progress, float("nan"), 1.0, SPIKES)
    remember(progress, 1.0, 1.0, Safety())
    assert progress.recent == []


@pytest.mark.parametrize(
    ("verdict", "settings", "response"),
    [
        ("fine", {}, "go on"),
        ("spike", {"on_spike": "warn"}, "warn"),
        ("spike", {"on_spike": "skip"}, "skip"),
        ("spike", {"on_spike": "rewind", "nonfinite": "skip"}, "rewind"),
        ("not finite", {"nonfinite": "skip"}, "skip"),
        ("not finite", {"nonfinite": "rewind"}, "rewind"),
    ],
)
def test_each_policy_is_followed_and_on_record(tmp_path, verdict, settings, response):
    seen: list[dict] = []
    progress, workspace = Progress(step=6), Workspace(tmp_path, on_event=seen.append)
    assert respond(verdict, progress, 9.0, 1.0, Safety(**settings), workspace) == response
    facts = {"what": verdict, "step": 7, "loss": 9.0, "grad_norm": 1.0, "done": response}
    assert seen == ([] if verdict == "fine" else [facts])
    assert progress.events == ([6] if response in ("skip", "rewind") else [])


def test_stop_stops(tmp_path):
    with pytest.raises(GlassboxError, match="diverged at step 7: loss nan"):
        respond("not finite", Progress(step=6), float("nan"), 1.0, Safety(), Workspace(tmp_path))


def test_too_many_of_them_stop_the_run(tmp_path):
    settings, seen = Safety(nonfinite="skip", limit=2, window=10), []
    progress, workspace = Progress(), Workspace(tmp_path, on_event=seen.append)
    for progress.step in (0, 5, 12, 20):  # never more than two within ten steps
        assert respond("not finite", progress, float("inf"), 1.0, settings, workspace) == "skip"
    progress.step = 21
    with pytest.raises(GlassboxError, match=r"stopped at step 22 .loss inf, gradient norm 1.0.: more than 2 spikes"):
        respond("not finite", progress, float("inf"), 1.0, settings, workspace)
    assert [event["done"] for event in seen] == ["skip"] * 4 + ["stop"]


def test_going_back_keeps_what_has_happened_and_replaces_what_was_read():
    restored = Progress(step=4, tokens=40, recent=[[1.0, 1.0]], replaced=[])
    now = Progress(step=7, tokens=70, events=[5, 7], replaced=[[2, 6]])
    assert rewound(restored, now) == Progress(
        step=4, tokens=40, recent=[[1.0, 1.0]], events=[5, 7], replaced=[[2, 6], [4, 8]]
    )


def test_a_run_that_stopped_may_go_on_with_another_choice():
    """What is done about numbers that are not finite does not make a stage another; what spikes do does."""
    assert identity(Safety(nonfinite="rewind", limit=3)) == identity(Safety())
    assert identity(Safety(spike=6.0)) != identity(Safety())
