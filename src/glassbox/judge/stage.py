"""The stage `problems`: writes `train.jsonl` and `held_out.jsonl`, one problem a line; and reads them back."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glassbox.errors import RequestError
from glassbox.judge.problems import Split, generate
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.recipe.text import ProblemsStage


def run(config: ProblemsStage, inputs: Inputs, workspace: Workspace) -> None:
    """Generate both splits. Raises RequestError when a kind cannot supply enough different problems."""
    counts: list[tuple[Split, int]] = [("train", config.train), ("held_out", config.held_out)]
    for done, (split, count) in enumerate(counts):
        workspace.progress(done, len(counts), split)
        problems = generate(config.kinds, count, workspace.seed, split, config.bare)
        write_lines(workspace.path(f"{split}.jsonl"), (asdict(problem) for problem in problems))
    workspace.progress(len(counts), len(counts))


def read_problems(folder: Path, split: Split) -> Iterator[dict[str, Any]]:
    """The problems of one split. Raises RequestError naming the line that is not one."""
    path = folder / f"{split}.jsonl"
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                problem = json.loads(line)
                problem["question"], problem["solution"], problem["answer"]
            except (ValueError, KeyError, TypeError):
                raise RequestError(f"{path}:{number}: not a problem with question, solution and answer") from None
            yield problem
