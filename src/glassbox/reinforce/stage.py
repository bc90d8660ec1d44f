"""The stage `grpo`: each step samples groups of replies, has the verifier score them, and updates the model once.

Rollouts are made where the loop asks for a step's batch, by the weights of that moment, from seeds that follow from
(seed, step, problem, sample): a resumed run samples the same tokens.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassbox.generate.replies import Reply, chat_prompt, sample_replies
from glassbox.judge.stage import read_problems
from glassbox.judge.verify import Verdict, verify
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.model.folder import LoadedModel, describe_model, load_model
from glassbox.recipe.training import GrpoStage
from glassbox.reinforce.objective import denominator, group_advantages, grpo, informative
from glassbox.tokens.order import permute, round_keys
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.finish import finish
from glassbox.train.loop import fit, steady
from glassbox.train.precision import set_precision
from glassbox.train.rows import IGNORE
from glassbox.train.step import NOTHING


def run(config: GrpoStage, inputs: Inputs, workspace: Workspace) -> None:
    """Train for `steps` rounds of rollout and update."""
    source = inputs.one("model") / "model"
    loaded = load_model(source, workspace.device)
    problems = list(read_problems(inputs.one("problems"), "train"))
    reference = load_model(source, workspace.device) if config.objective.kl else None
    if reference is not None:
        set_precision(reference.model, config.loop, workspace.device)
    progress = fit(
        loaded.model,
        lambda step, share: rollout(config, loaded, reference, problems, workspace, step),
        grpo(config.objective, config.sampling.temperature),
        steps=config.steps,
        course=steady(config.optimizer, config.schedule, config.steps, NOTHING),
        loop=config.loop,
        workspace=workspace,
        denominator=denominator(config.objective),
        from_model=True,
        describe=lambda folder, step: describe_model(folder, loaded.sizes, source),
    )
    about = {"prompts": config.prompts * config.steps, "completions": config.prompts * config.steps * config.group}
    finish(workspace, loaded, progress, source, about)


def rollout(
    config: GrpoStage,
    loaded: LoadedModel,
    reference: LoadedModel | None,
    problems: list[dict[str, Any]],
    workspace: Workspace,
    step: int,
) -> dict[str, Any]:
    """One step's rows: completions of the step's problems with their advantages, every one kept on disk.

    A step beyond the last asks and samples what no step of the run does, in place of the step that it is a whole run
    after: that is how a step is done again with other data.
    """
    chosen = [problems[i] for i in prompt_indices(config.prompts, len(problems), workspace.seed, step)]
    prompts = [chat_prompt(loaded, problem["question"]) for problem in chosen]
    groups = sample_replies(loaded, prompts, config.sampling, key=(workspace.seed, "grpo", step), samples=config.group)
    verdicts = [
        [verify(gold=problem["answer"], reply=reply.text) for reply in replies]
        for problem, replies in zip(chosen, groups, strict=True)
    ]
    reward_NG = torch.tensor([[_reward(verdict) for verdict in group] for group in verdicts])
    advantage_NG = group_advantages(reward_NG, config.objective.advantage)
    place = step % config.steps
    _keep(workspace, place, chosen, groups, verdicts, advantage_NG)
    replies = [reply for group in groups for reply in group]
    workspace.metric(place + 1, **rollout_metrics(reward_NG, replies, verdicts))
    rows = completion_rows(replies, advantage_NG.flatten())
    if reference is not None:
        rows["reference_logprob"] = logprobs_of_labels(
            reference.model, rows, config.loop.micro_rows, config.sampling.temperature
        )
    return rows


def prompt_indices(prompts: int, available: int, seed: int, step: int) -> NDArray[np.int64]:
    """Which problems a step asks: the next ones of an order that is new for each pass over the problems."""
    turn = np.arange(step * prompts, (step + 1) * prompts)
    parts = []
    for epoch in range(turn[0] // available, turn[-1] // available + 1):
        places = turn[turn // available == epoch] % available
        parts.append(permute(places, available, round_keys(seed, f"grpo/epoch {epoch}")))
    return np.concatenate(parts)


def completion_rows(replies: list[Reply], advantage_B: Tensor) -> dict[str, Any]:
    """Rows for the objective, shortest first so that micro-batches carry little padding.

    Completions of groups that teach nothing (advantage 0) are left out: only tokens that can move the weights count in
    the loss's denominator, as under DAPO's dynamic sampling (arXiv:2503.14476, section 3.2).
    """
    taught = advantage_B.nonzero().flatten().tolist() or [0]
    order = sorted(taught, key=lambda i: len(replies[i].prompt_ids) + len(replies[i].ids))
    width = len(replies[order[-1]].prompt_ids) + len(replies[order[-1]].ids)
    ids, labels = np.zeros((len(order), width), np.int64), np.full((len(order), width), IGNORE, np.int64)
    documents = np.full((len(order), width), -1, np.int64)
    for row, i in enumerate(order):
        prompt, end = len(replies[i].prompt_ids), len(replies[i].prompt_ids) + len(replies[i].ids)
        ids[row, :end] = replies[i].prompt_ids + replies[i].ids
        labels[row, prompt:end] = replies[i].ids
        documents[row, :end] = 0
    return {"ids": ids, "labels": labels, "documents": documents, "advantage": advantage_B[order].clone()}


def rollout_metrics(reward_NG: Tensor, replies: list[Reply], verdicts: list[list[Verdict]]) -> dict[str, float]:
    """What a step's rollouts show: mean reward, groups without signal, lengths in tokens, how replies ended."""
    lengths = [len(reply.ids) for reply in replies]
    flat = [verdict for group in verdicts for verdict in group]
    known = reward_NG[~reward_NG.isnan()]
    return {
        "reward": float(known.mean()) if known.numel() else float("nan"),
        "groups_without_signal": float(1 - informative(reward_NG).float().mean()),
        "completion_tokens": sum(lengths) / len(lengths),
        "truncated": sum(reply.finish_reason == "length" for reply in replies) / len(replies),
        "no_answer": sum(verdict.status == "no_answer" for verdict in flat) / len(flat),
        "not_judged": sum(verdict.score is None for verdict in flat) / len(flat),
    }


def _reward(verdict: Verdict) -> float:
    """A reply that could not be judged has no reward (NaN): it must not teach."""
    return float("nan") if verdict.score is None else verdict.score


def _keep(
    workspace: Workspace,
    step: int,
    problems: list[dict[str, Any]],
    groups: list[list[Reply]],
    verdicts: list[list[Verdict]],
    advantage_NG: Tensor,
) -> None:
    rows = [
        {
            "problem": problem["id"],
            "question": problem["question"],
            "reply": reply.text,
            "ids": reply.ids,
            "logprobs": [round(value, 5) for value in reply.logprobs],
            "finish_reason": reply.finish_reason,
            "reward": verdict.score,
            "status": verdict.status,
            "advantage": round(advantage, 6),
            "policy_version": step,
        }
        for problem, replies, judged, advantages in zip(problems, groups, verdicts, advantage_NG.tolist(), strict=True)
        for reply, verdict, advantage in zip(replies, judged, advantages, strict=True)
    ]
    write_lines(workspace.path("rollouts", f"step-{step + 1:06d}.jsonl"), rows)
