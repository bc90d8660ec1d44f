"""Continuations scored by several processes: the sums of one, under every way of cutting the network."""

import logging
import logging.handlers
import os
from pathlib import Path

import pytest
import torch.distributed as dist

from glassbox.evaluate.in_loop import continuation_logprobs, scorer
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Parallel
from glassbox.recipe.tasks import Task, TaskRows
from glassbox.tokens.pack import Encoded
from glassbox.train.parallel.place import Placed, place
from tests.evaluate.test_in_loop import config
from tests.tiny import tiny_loaded
from tests.train.parallel.ranks import run_ranks

CONTEXT = 32
PLANS = (Parallel(shard=2), Parallel(tensor=2), Parallel(context=2), Parallel(pipeline=2))


def sequences(count: int) -> list[Encoded]:
    """Sequences that fill rows of their own: of one, two or three rows some process has fewer than another."""
    lengths = [20 + n % 5 for n in range(count)]
    return [
        ([(7 * n + k) % 200 for k in range(length)], [k >= length // 2 for k in range(length)])
        for n, length in enumerate(lengths)
    ]


def fresh() -> Transformer:
    return tiny_loaded(CONTEXT).model


def assert_scores_of_one(problems: Path) -> None:
    os.environ.pop("WORLD_SIZE")  # as in a run, where the group alone says how many they are
    handler = logging.handlers.BufferingHandler(100)
    logging.getLogger("glassbox").addHandler(handler)
    for count in (1, 3):
        expected = continuation_logprobs(Placed([fresh()]), sequences(count), CONTEXT, 2)
        for plan in PLANS:
            placed = place(fresh(), plan, "cpu")
            assert placed.ranks.world == dist.get_world_size() == 2
            found = continuation_logprobs(placed, sequences(count), CONTEXT, 2)
            assert found == pytest.approx(expected, rel=1e-5), f"{plan} with {count} rows"
            placed.settle()
    stage = config(Task(name="sums", form="problems", rows=TaskRows(path=str(problems)), max_new_tokens=4))
    score = scorer(stage, Inputs(), Workspace(problems.parent), tiny_loaded(CONTEXT).tokenizer, CONTEXT)
    assert "task 'sums' is left out" in handler.buffer[-1].getMessage()
    assert score(placed) == {}


def test_processes_score_together_what_one_scores(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    write_lines(problems, [{"question": "What is 2 + 2?", "solution": "#### 4", "answer": "4"}])
    run_ranks(assert_scores_of_one, 2, problems)
