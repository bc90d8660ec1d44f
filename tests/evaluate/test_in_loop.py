"""Scores against all logits of every sequence by itself, and against hand-made log-probabilities."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from glassbox.errors import RequestError
from glassbox.evaluate.forms import Question
from glassbox.evaluate.in_loop import (
    SCORES,
    chosen,
    continuation_logprobs,
    cut_left,
    encoded_pair,
    judged,
    score_rows,
    scorer,
    written_answers,
)
from glassbox.evaluate.tasks import Asked, Item, items_of
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.phases import Phase
from glassbox.recipe.tasks import Task, TaskRows
from glassbox.recipe.training import PretrainStage
from glassbox.tokens.tokenizer import encode
from glassbox.train.parallel.place import Placed
from tests.tiny import tiny_loaded

NETWORK = Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=2))


def question(*texts: str, gold: int = 0) -> Item:
    return Item(Question(("Question:",) * len(texts), texts, gold), 0, "")


def config(*tasks: Task) -> PretrainStage:
    return PretrainStage(
        kind="pretrain",
        model=NETWORK,
        phases=(Phase(name="only", steps=3, mixture={"notes": 1}, context=96, rows=4),),
        optimizer=Optimizer(lr=1e-3),
        tasks=tasks,
    )


def brute(loaded, before: str, after: str, longest: int) -> float:
    """log p of a continuation from the logits of every position, one sequence at a time."""
    continuation = encode(loaded.tokenizer, after)
    ids = [*encode(loaded.tokenizer, before), *continuation][-longest:]
    hidden_TD = loaded.model(torch.tensor([ids])).hidden_BTD[0]
    logprobs_TV = (hidden_TD @ loaded.model.head_VD.T).double().log_softmax(-1)
    first = len(ids) - len(continuation)
    return sum(float(logprobs_TV[first - 1 + k, token]) for k, token in enumerate(continuation))


def test_scores_are_those_of_all_logits() -> None:
    loaded = tiny_loaded(context=64)
    words = re.findall(r"\S+", "What is left of 12 apples when Anna eats three and gives two to Ben?")
    pairs = [(" ".join(words[:n]), " " + " ".join(words[n:])) for n in range(1, len(words))]
    pairs += [("Question: " + "How many? " * 30, " 7"), ("A", " yes"), ("A", " no")]
    encoded = [cut_left("one", *encoded_pair(loaded.tokenizer, *pair), 64) for pair in pairs]
    assert max(len(ids) for ids, _ in encoded) == 64, "one is cut from the left"
    found = continuation_logprobs(Placed([loaded.model]), encoded, 64, micro_rows=2)
    with torch.no_grad():
        assert found == pytest.approx([brute(loaded, *pair, 64) for pair in pairs], rel=1e-5)


def test_a_continuation_without_room_is_refused_and_an_empty_context_is_an_end_of_text() -> None:
    loaded = tiny_loaded()
    ids, mask = encoded_pair(loaded.tokenizer, "A B", " one two three")
    assert cut_left("one", ids, mask, sum(mask) + 1) == (ids[-sum(mask) - 1 :], [False] + [True] * sum(mask))
    with pytest.raises(RequestError, match="task 'one': a continuation takes"):
        cut_left("one", ids, mask, sum(mask))
    ids, mask = encoded_pair(loaded.tokenizer, "", " 1")
    assert ids[0] == loaded.tokenizer.token_to_id("<|endoftext|>")
    assert mask == [False] + [True] * (len(ids) - 1)


def test_the_metrics_are_the_references() -> None:
    item = question(" a", " ähnlich", gold=1)
    sums = [-4.0, -7.0 * math.log(2)]
    assert not chosen(item, sums, by_character=False).right, "the sum favours the short one"
    assert chosen(item, sums, by_character=True).right, "4 nats for 1 character against 4.9 for 7"
    assert chosen(item, sums, by_character=True).bits_per_byte == pytest.approx(7 / 8)
    assert chosen(question(" a", " b"), [-1.0, -1.0], by_character=False).right, "of equal ones the first is taken"


def test_each_score_carries_its_protocol_and_interval() -> None:
    asked = Asked(Task(name="quiz", form="mmlu_mc", rows=TaskRows(path="x"), examples=TaskRows(path="x"), shots=5), ())
    items = [Item(question(" a", " b").question, n, "stem" if n < 3 else "other") for n in range(4)]
    rows = score_rows(asked, [chosen(item, [-1.0, -2.0 + 2 * (n == 0)], False) for n, item in enumerate(items)])
    assert [(row["task"], row["metric"], row["n"]) for row in rows] == [
        *(("quiz", "acc", 4), ("quiz", "bpb", 4), ("quiz_other", "acc", 1)),
        *(("quiz_other", "bpb", 1), ("quiz_stem", "acc", 3), ("quiz_stem", "bpb", 3)),
    ]
    assert rows[0]["value"] == 0.75
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-3)  # Wilson's, by hand
    assert rows[4]["value"] == pytest.approx(2 / 3)
    assert rows[0]["shots"] == [5]
    assert rows[0]["form"] == "mmlu_mc"
    assert len(rows[0]["data_sha256"]) == 64


def test_items_of_one_row_are_one_unit_of_chance() -> None:
    asked = Asked(Task(name="ways", form="mmlu_var", rows=TaskRows(path="x"), examples=TaskRows(path="x")), ())
    outcomes = [
        chosen(Item(question(" a", " b").question, row, "other"), [-1.0, -2.0 * (row % 2 == 0)], False)
        for row in range(10)
        for _ in range(7)
    ]
    score = score_rows(asked, outcomes)[0]
    assert (score["value"], score["n"]) == (0.5, 70)
    half = 1.95996 * math.sqrt(0.25 / 9)  # ten independent rows, each all right or all wrong
    assert (score["low"], score["high"]) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)


def test_written_answers_are_judged_up_to_the_first() -> None:
    item = Item(Question(("Question: 2 + 2?\nAnswer:",), (" #### 4",), 0, "4"), 0, "")
    assert judged(item, " 2+2=4\n#### 4\n\nQuestion: 3 + 3?\nAnswer: 6\n#### 6").right
    assert not judged(item, " five\nQuestion: 2 + 2?\nAnswer: #### 4").right
    assert not judged(item, " I do not know").right


def test_a_stage_is_scored_on_what_it_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = tiny_loaded(context=96)
    rows = [{"goal": f"Add {n} and 1", "sol1": f"{n + 1}", "sol2": "no", "label": 0} for n in range(5)]
    write_lines(tmp_path / "piqa.jsonl", rows)
    problems = tmp_path / "problems"
    problems.mkdir()
    row = {"question": "What is 2 + 2?", "solution": "2+2=4\n#### 4", "answer": "4"}
    for split in ("train", "held_out"):
        write_lines(problems / f"{split}.jsonl", [row | {"question": f"{split} {n}?"} for n in range(3)])
    stage = config(
        Task(name="piqa", form="piqa", rows=TaskRows(path=str(tmp_path / "piqa.jsonl"))),
        Task(name="sums", form="problems", limit=2, shots=1, max_new_tokens=94),
    )
    inputs = Inputs((Artefact("problems", "problems", problems),))
    workspace = Workspace(tmp_path)
    score = scorer(stage, inputs, workspace, loaded.tokenizer, 96)
    found = score(Placed([loaded.model]))
    assert "task 'sums': 2 texts are cut from the left to 2 tokens" in caplog.text
    assert set(found) == {"task/piqa/len_norm", "task/piqa/bpb", "task/sums/exact_match"}
    assert score(Placed([loaded.model])) == found
    written = json.loads((tmp_path / SCORES).read_text())
    assert {f"task/{one['task']}/{one['metric']}": one["value"] for one in written["rows"]} == found
    assert [one["n"] for one in written["rows"]] == [5, 5, 2]
    with pytest.raises(RequestError, match="context is 96"):
        written_answers(
            items_of(Task(name="long", form="problems", max_new_tokens=96), problems), loaded.tokenizer, 96, 1
        )
