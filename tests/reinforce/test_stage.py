"""Rollouts: which problems a step asks, which tokens are trained on, what is kept, and that they repeat."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from glassbox.generate.replies import Reply
from glassbox.judge.verify import Verdict
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.training import GrpoStage, Sampling
from glassbox.reinforce.stage import completion_rows, prompt_indices, rollout, rollout_metrics
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.rows import IGNORE
from tests.tiny import tiny_loaded, tiny_problems


def test_a_pass_asks_every_problem_once_in_a_new_order() -> None:
    steps = [prompt_indices(4, 10, seed=1, step=step) for step in range(5)]
    asked = np.concatenate(steps)
    assert sorted(asked[:10]) == sorted(asked[10:]) == list(range(10))
    assert list(asked[:10]) != list(asked[10:])
    assert [s.tolist() for s in steps] == [prompt_indices(4, 10, 1, step).tolist() for step in range(5)]


def test_rows_hold_completions_with_an_advantage_shortest_first() -> None:
    replies = [Reply([1, 2], [3, 4, 5], [0.0] * 3, "", "stop"), Reply([1], [6], [0.0], "", "stop")]
    replies.append(Reply([1, 2], [7], [0.0], "", "stop"))
    rows = completion_rows(replies, torch.tensor([0.5, -0.5, 0.0]))
    assert rows["ids"].tolist() == [[1, 6, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert rows["labels"].tolist() == [[IGNORE, 6, IGNORE, IGNORE, IGNORE], [IGNORE, IGNORE, 3, 4, 5]]
    assert rows["documents"].tolist() == [[0, 0, -1, -1, -1], [0] * 5]
    assert rows["advantage"].tolist() == [-0.5, 0.5]
    assert len(completion_rows(replies, torch.zeros(3))["ids"]) == 1  # a step without any signal still has a row


def test_what_cannot_be_judged_has_no_reward() -> None:
    verdicts = [[Verdict(1.0, "1", "ok"), Verdict(None, None, "error")], [Verdict(0.0, None, "no_answer")] * 2]
    rewards = torch.tensor([[1.0, math.nan], [0.0, 0.0]])
    replies = [Reply([1], [2, 3], [0.0] * 2, "", reason) for reason in ("stop", "stop", "length", "stop")]
    metrics = rollout_metrics(rewards, replies, verdicts)
    assert metrics["reward"] == pytest.approx(1 / 3)
    assert metrics["groups_without_signal"] == 1.0
    assert (metrics["truncated"], metrics["no_answer"], metrics["not_judged"]) == (0.25, 0.5, 0.25)


def test_a_rollout_repeats_and_its_log_probabilities_are_the_trainers(tmp_path: Path) -> None:
    """The standing check on two code paths for one model: the mismatch e^d - d - 1 at step 0 is below 1e-5."""
    loaded = tiny_loaded()
    problems = [asdict(problem) for problem in tiny_problems(6)]
    config = GrpoStage(
        kind="grpo",
        steps=1,
        prompts=3,
        group=4,
        sampling=Sampling(max_new_tokens=12, batch=5),
        optimizer=Optimizer(lr=1e-3),
    )
    workspace = Workspace(tmp_path, seed=1)
    rollout(config, loaded, None, problems, workspace, step=0)
    first = (tmp_path / "rollouts" / "step-000001.jsonl").read_text()
    rollout(config, loaded, None, problems, workspace, step=0)
    assert (tmp_path / "rollouts" / "step-000001.jsonl").read_text() == first
    kept = [json.loads(line) for line in first.splitlines()]
    assert len(kept) == 12
    assert len({row["reply"] for row in kept}) > 6
    rollout(config, loaded, None, problems, workspace, step=config.steps)  # the first step once more, with other data
    assert (tmp_path / "rollouts" / "step-000001.jsonl").read_text() != first
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 1, 1]
    replies = [Reply([1, 2, 3], row["ids"], row["logprobs"], "", "stop") for row in kept]
    assert all(row["policy_version"] == 0 and row["advantage"] == 0 for row in kept)
    from glassbox.generate.replies import chat_prompt

    replies = [Reply(chat_prompt(loaded, row["question"]), row["ids"], row["logprobs"], "", "stop") for row in kept]
    rows = completion_rows(replies, torch.arange(1.0, 13.0))
    trainer = logprobs_of_labels(loaded.model, rows)
    for row, index in enumerate(np.argsort([len(r.prompt_ids) + len(r.ids) for r in replies], kind="stable")):
        mine = trainer[row][torch.tensor(rows["labels"][row] != IGNORE)]
        difference = mine - torch.tensor(replies[index].logprobs)
        assert float((difference.exp() - difference - 1).mean()) < 1e-5
