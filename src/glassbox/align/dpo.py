"""The stage `dpo`: pairs sampled from the model itself, judged by the verifier; then direct preference optimisation."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from glassbox.align.objective import dpo
from glassbox.errors import RequestError
from glassbox.generate.replies import Reply, chat_prompt, sample_replies
from glassbox.judge.stage import read_problems
from glassbox.judge.verify import verify
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.model.folder import LoadedModel, describe_model, load_model
from glassbox.recipe.training import DpoStage
from glassbox.tokens.order import Share, epoch_indices, permute, round_keys
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.finish import finish
from glassbox.train.loop import fit, steady
from glassbox.train.parallel.ranks import gathered, processes
from glassbox.train.precision import set_precision
from glassbox.train.rows import IGNORE, row_count
from glassbox.train.step import NOTHING

SAMPLED_AT_ONCE = 256
"""Problems sampled between two progress reports."""


def run(config: DpoStage, inputs: Inputs, workspace: Workspace) -> None:
    """Sample, pair, take the starting model's log-probabilities, train. Pairs are a pure function of model and seed."""
    if config.rows % processes():
        raise RequestError(f"rows: the {config.rows} pairs of a step do not divide among {processes()} processes")
    source = inputs.one("model") / "model"
    loaded = load_model(source, workspace.device)
    problems = list(read_problems(inputs.one("problems"), "train"))
    pairs, counts = sample_pairs(config, loaded, problems, workspace)
    if workspace.rank == 0:
        write_lines(workspace.path("pairs.jsonl"), [_shown(*pair) for pair in pairs])
        write_json(workspace.path("pairs.json"), counts)
    if len(pairs) < config.rows:
        raise RequestError(
            f"{config.prompts} problems gave {len(pairs)} pairs of a right and a wrong reply, fewer than one step's "
            f"{config.rows} (all right: {counts['all_right']}, all wrong: {counts['all_wrong']}); raise `prompts` or "
            "`samples`, or lower `rows`"
        )
    columns = pair_rows([(chosen, rejected) for _, chosen, rejected in pairs])
    set_precision(loaded.model, config.loop, workspace.device)  # the reference's arithmetic is the trained model's
    columns["reference"] = logprobs_of_labels(loaded.model, columns, config.loop.micro_rows).sum(-1).numpy()

    def batch_at(step: int, share: Share) -> dict[str, Any]:
        index = epoch_indices(step, config.rows, len(pairs), workspace.seed, "dpo")[share.of(config.rows)]
        return {name: column[index] for name, column in columns.items()}

    steps = config.epochs * (len(pairs) // config.rows)
    progress = fit(
        loaded.model,
        batch_at,
        dpo(config.beta),
        steps=steps,
        course=steady(config.optimizer, config.schedule, steps, NOTHING),
        loop=config.loop,
        workspace=workspace,
        denominator=row_count,
        describe=lambda folder, step: describe_model(folder, loaded.sizes, source),
    )
    finish(workspace, loaded, progress, source, counts)


def sample_pairs(
    config: DpoStage, loaded: LoadedModel, problems: Sequence[dict[str, Any]], workspace: Workspace
) -> tuple[list[tuple[dict[str, Any], Reply, Reply]], dict[str, int]]:
    """(problem, right reply, wrong reply) triples, and counts of what was sampled and what gave no pair. Of several
    processes each samples its share, and all get all."""
    order = permute(
        np.arange(min(config.prompts, len(problems))), len(problems), round_keys(workspace.seed, "dpo/prompts")
    )
    sampled = []
    for turn, start in enumerate(range(0, len(order), SAMPLED_AT_ONCE)):
        if turn % processes() == workspace.rank:
            chosen = [problems[i] for i in order[start : start + SAMPLED_AT_ONCE]]
            sampled.append((start, *_pairs_of(config, loaded, chosen, (workspace.seed, "dpo", start))))
            workspace.progress(start + len(chosen), len(order), "sampling")
            workspace.stop_if_asked()
    pairs, counts = [], Counter(prompts=len(order), replies=0, right=0, all_right=0, all_wrong=0, not_judged=0)
    for _, some, counted in sorted(gathered(sampled), key=itemgetter(0)):
        pairs += some
        counts.update(counted)
    return pairs, {**counts, "pairs": len(pairs)}


def _pairs_of(
    config: DpoStage, loaded: LoadedModel, problems: Sequence[dict[str, Any]], key: tuple[int | str, ...]
) -> tuple[list[tuple[dict[str, Any], Reply, Reply]], Counter[str]]:
    """The pairs that replies to some problems give, and counts."""
    pairs: list[tuple[dict[str, Any], Reply, Reply]] = []
    counts: Counter[str] = Counter()
    prompts = [chat_prompt(loaded, problem["question"]) for problem in problems]
    groups = sample_replies(loaded, prompts, config.sampling, key=key, samples=config.samples)
    for problem, replies in zip(problems, groups, strict=True):
        scores = [verify(gold=problem["answer"], reply=reply.text).score for reply in replies]
        right = [reply for reply, score in zip(replies, scores, strict=True) if score == 1.0]
        wrong = [reply for reply, score in zip(replies, scores, strict=True) if score == 0.0]
        counts["replies"] += len(replies)
        counts["right"] += len(right)
        counts["not_judged"] += scores.count(None)
        counts["all_right"] += not wrong
        counts["all_wrong"] += not right
        pairs += [(problem, *pair) for pair in _different(right, wrong)[: config.pairs_per_prompt]]
    return pairs, counts


def _different(right: list[Reply], wrong: list[Reply]) -> list[tuple[Reply, Reply]]:
    """Pairs of replies, each used once, no text twice on a side, in the order they were sampled."""
    sides = [list({reply.text: reply for reply in reversed(side)}.values())[::-1] for side in (right, wrong)]
    return list(zip(*sides, strict=False))


def pair_rows(pairs: Sequence[tuple[Reply, Reply]]) -> dict[str, np.ndarray]:
    """`ids`, `labels`, `documents`: each (pairs, 2, T), chosen first; completions labelled, padding in document -1."""
    width = max(len(reply.prompt_ids) + len(reply.ids) for pair in pairs for reply in pair)
    shape = (len(pairs), 2, width)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
    documents = np.full(shape, -1, np.int64)
    for row, pair in enumerate(pairs):
        for side, reply in enumerate(pair):
            prompt, end = len(reply.prompt_ids), len(reply.prompt_ids) + len(reply.ids)
            ids[row, side, :end] = reply.prompt_ids + reply.ids
            labels[row, side, prompt:end] = reply.ids
            documents[row, side, :end] = 0
    return {"ids": ids, "labels": labels, "documents": documents}


def _shown(problem: dict[str, Any], chosen: Reply, rejected: Reply) -> dict[str, Any]:
    return {
        "id": problem["id"],
        "question": problem["question"],
        "answer": problem["answer"],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "chosen_ids": chosen.ids,
        "rejected_ids": rejected.ids,
    }
