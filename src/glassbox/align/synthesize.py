"""The stage `synthesize`: solutions sampled from a model, verified, and those worth training on kept as documents.

Replies are kept in `replies/` as they come, so that an interrupted stage asks little twice; which of them become
documents follows from the replies and the settings alone (`verified.py`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glassbox.align.endpoint import Answer, ask
from glassbox.align.verified import STEPS, Outputs, funnel, judged
from glassbox.errors import RequestError
from glassbox.generate.replies import chat_prompt, sample_replies, seed_for
from glassbox.judge.stage import read_problems
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.model.folder import load_model
from glassbox.recipe.text import SynthesizeStage
from glassbox.tokens.order import permute, round_keys

AT_ONCE = 64
"""Problems asked between two progress reports; what a kill loses at most."""
INSTRUCTION = "{question}\n\nReason step by step, and put the final answer within \\boxed{}."
"""What an endpoint is asked by default (OpenR1's prompt)."""

Asker = Callable[[Sequence[str], int], list[list[Answer | None]]]
"""(prompts, number of the first problem) -> the answers to each."""


def run(config: SynthesizeStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves `documents/` and `dropped/` (Parquet), `replies/`, `funnel.json`, `samples.json` and `summary.json`.

    Raises RequestError if there is nobody to ask, or if no solution is kept at all.
    """
    (given,) = inputs.all("problems")
    problems = _drawn(config, list(read_problems(given.path, "train")), workspace.seed)
    generator, asker = _asker(config, inputs, workspace)
    template = config.prompt or (INSTRUCTION if config.endpoint else "{question}")
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    solved = 0
    with Outputs(workspace.folder) as outputs:
        for start in range(0, len(problems), AT_ONCE):
            chunk = problems[start : start + AT_ONCE]
            prompts = [template.replace("{question}", problem["question"]) for _, problem in chunk]
            answers = _kept_answers(workspace.path("replies", f"replies-{start:08d}.jsonl"), asker, prompts, start)
            for (row, problem), prompt, replies in zip(chunk, prompts, answers, strict=True):
                solutions = judged(problem, replies, config)
                solved += any(solution.right for solution in solutions)
                for solution in solutions:
                    counts[solution.rule] += 1
                    sizes[solution.rule] += len(solution.text.encode("utf-8", "replace"))
                outputs.add(solutions, _facts(config, problem, row, prompt, f"{given.name}/train.jsonl", generator))
            outputs.flush()
            workspace.progress(start + len(chunk), len(problems), f"asking · {counts['']} kept")
            workspace.stop_if_asked()
    write_json(workspace.path("funnel.json"), funnel(config.source, counts, sizes))
    write_json(workspace.path("samples.json"), outputs.samples)
    summary = {"problems": len(problems), "solved": solved, "replies": counts.total(), "kept": counts[""]}
    dropped = {rule: counts[rule] for rule in STEPS if rule in counts}
    write_json(workspace.path("summary.json"), {**summary, "dropped": dropped, "generator": generator})
    if not counts[""]:
        found = ", ".join(f"{count} {rule}" for rule, count in dropped.items())
        raise RequestError(
            f"none of {counts.total()} solutions by {generator} was kept ({found}); look at dropped/, raise `samples`, "
            "or widen low..high"
        )


def _drawn(config: SynthesizeStage, problems: list[dict[str, Any]], seed: int) -> list[tuple[int, dict[str, Any]]]:
    """(row in train.jsonl, problem) of those that are asked, in an order drawn by the seed."""
    count = min(config.problems, len(problems))
    if not count:
        raise RequestError("the problems stage gave no training problem to solve")
    order = permute(np.arange(count), len(problems), round_keys(seed, "synthesize/problems"))
    return [(int(row), problems[row]) for row in order]


def _asker(config: SynthesizeStage, inputs: Inputs, workspace: Workspace) -> tuple[str, Asker]:
    """Who is asked, and how: the endpoint, or the model of an earlier stage."""
    models = inputs.all("model")
    if config.endpoint:
        endpoint = config.endpoint

        def over_http(prompts: Sequence[str], first: int) -> list[list[Answer | None]]:
            keys = [(place, sample) for place in range(len(prompts)) for sample in range(config.samples)]
            wanted = {
                f"{place} {sample}": (prompts[place], seed_for(workspace.seed, "synthesize", first + place, sample))
                for place, sample in keys
            }
            found: dict[str, Answer | None] = {}
            for key, answer in ask(endpoint, wanted, config.sampling):
                found[key] = answer
                workspace.stop_if_asked()
            return [[found[f"{place} {n}"] for n in range(config.samples)] for place in range(len(prompts))]

        return endpoint.model, over_http
    if not models:
        raise RequestError("a synthesize stage needs a model: name the stage of one in `from`, or set endpoint")
    loaded = load_model(models[0].path / "model", workspace.device)

    def ourselves(prompts: Sequence[str], first: int) -> list[list[Answer | None]]:
        ids = [chat_prompt(loaded, prompt) for prompt in prompts]
        key = (workspace.seed, "synthesize", first)
        groups = sample_replies(loaded, ids, config.sampling, key=key, samples=config.samples)
        return [[Answer(reply.text, reply.finish_reason) for reply in replies] for replies in groups]

    return models[0].name, ourselves


def _kept_answers(path: Path, asker: Asker, prompts: list[str], first: int) -> list[list[Answer | None]]:
    """The answers to a chunk of prompts: from disk, or asked for now."""
    if not path.exists():
        rows = [[answer and answer._asdict() for answer in answers] for answers in asker(prompts, first)]
        write_lines(path, rows)
    return list(_read(path))


def _read(path: Path) -> Iterator[list[Answer | None]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield [Answer(**answer) if answer else None for answer in json.loads(line)]


def _facts(
    config: SynthesizeStage, problem: dict[str, Any], row: int, prompt: str, origin: str, generator: str
) -> dict[str, Any]:
    """What all documents made of one problem say of it."""
    return {
        "source": config.source,
        "origin": origin,
        "offset": row,
        "url": "",
        "question": problem["question"],
        "prompt": prompt,
        "problem": str(problem.get("id", row)),
        "answer": problem["answer"],
        "generator": generator,
    }
