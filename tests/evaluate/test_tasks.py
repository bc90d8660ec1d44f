"""Rows from files, examples before questions, and refusals that name the file."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from glassbox.errors import RequestError
from glassbox.evaluate.tasks import items_of
from glassbox.recipe.network import Experts
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.phases import Phase
from glassbox.recipe.tasks import Task, TaskRows
from glassbox.recipe.training import PretrainStage
from tests.evaluate.test_in_loop import NETWORK

ROWS = [{"query": f"Question {n}:", "choices": ["yes", "no"], "gold": n % 2, "split": "ab"[n % 2]} for n in range(6)]


def write(path: Path, rows: list[dict]) -> TaskRows:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return TaskRows(path=str(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_are_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    where = write(tmp_path / name, ROWS)
    asked = items_of(Task(name="one", form="cloze", rows=where))
    assert [item.question.contexts[0] for item in asked.items] == [row["query"] for row in ROWS]
    assert [item.question.gold for item in asked.items] == [0, 1] * 3
    odd = items_of(Task(name="one", form="cloze", rows=where.model_copy(update={"split": "b"})))
    assert [item.question.contexts[0] for item in odd.items] == [row["query"] for row in ROWS[1::2]]
    assert asked.sha256 != odd.sha256
    folder = items_of(Task(name="two", form="cloze", rows=TaskRows(path=str(tmp_path))))
    assert folder.sha256 == asked.sha256


def test_data_sets_of_a_hub_are_streamed(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "train.parquet", ROWS)
    asked = items_of(Task(name="one", form="cloze", rows=TaskRows(path=f"hf://{tmp_path}", split="train")))
    assert [item.question.contexts[0] for item in asked.items] == [row["query"] for row in ROWS]
    with pytest.raises(RequestError, match="cannot be read"):
        items_of(Task(name="one", form="cloze", rows=TaskRows(path=f"hf://{tmp_path}", split="test")))


def test_examples_are_solved_and_never_the_question_itself(tmp_path: Path) -> None:
    where = write(tmp_path / "rows.jsonl", ROWS)
    items = items_of(Task(name="one", form="cloze", rows=where, examples=where, shots=2)).items
    assert items[0].question.contexts[1] == "Question 1: no\n\nQuestion 2: yes\n\nQuestion 0:"
    assert items[4].question.contexts[0] == "Question 0: yes\n\nQuestion 1: no\n\nQuestion 4:"


def test_too_few_examples_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = write(tmp_path / "rows.jsonl", ROWS[:2])
    items = items_of(Task(name="one", form="cloze", rows=where, examples=where, shots=3)).items
    assert items[0].question.contexts[0] == "Question 1: no\n\nQuestion 0:"
    assert "wants 3 examples, but there are only 1" in caplog.text


def test_the_problems_of_a_stage_are_a_task_of_their_own(tmp_path: Path) -> None:
    row = {"question": "What is 2 + 2?", "solution": "2+2=4\n#### 4", "answer": "4"}
    write(tmp_path / "held_out.jsonl", [row])
    write(tmp_path / "train.jsonl", [{**row, "question": "And 4?"}])
    items = items_of(Task(name="own", form="problems", shots=1), tmp_path).items
    assert items[0].question.contexts == ("And 4?\n2+2=4\n#### 4\n\nWhat is 2 + 2?\n",)
    assert items[0].question.answer == "4"
    with pytest.raises(RequestError, match="problems stage in `from`"):
        items_of(Task(name="own", form="problems"))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    task = Task(name="one", form="piqa", rows=write(tmp_path / "rows.jsonl", ROWS))
    with pytest.raises(RequestError, match=r"task 'one': a row is not of form piqa \(KeyError\('goal'\)\)"):
        items_of(task)
    with pytest.raises(RequestError, match="number 2 of 2"):
        items_of(Task(name="one", form="cloze", rows=write(tmp_path / "wrong.jsonl", [{**ROWS[0], "gold": 2}])))
    (tmp_path / "broken.jsonl").write_text(json.dumps(ROWS[0]) + "\n[1]\n")
    with pytest.raises(RequestError, match=r"broken\.jsonl:2 is no JSON object"):
        items_of(Task(name="one", form="cloze", rows=TaskRows(path=str(tmp_path / "broken.jsonl"))))
    with pytest.raises(RequestError, match="holds no rows of split test"):
        items_of(Task(name="one", form="cloze", rows=TaskRows(path=str(tmp_path / "rows.jsonl"), split="test")))
    with pytest.raises(RequestError, match="does not exist"):
        items_of(Task(name="one", form="cloze", rows=TaskRows(path=str(tmp_path / "none.jsonl"))))


def test_settings_that_cannot_be_are_refused() -> None:
    rows = TaskRows(path="rows.jsonl")
    for wrong, said in (
        ({"form": "piqa"}, "needs rows"),
        ({"form": "piqa", "rows": rows, "shots": 2}, "take its examples from"),
        ({"form": "mmlu_var", "rows": rows}, "take its examples from"),
        ({"form": "mmlu_var", "rows": rows, "examples": rows, "shots": 5}, "has its own examples"),
    ):
        with pytest.raises(ValidationError, match=said):
            Task(name="one", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="needs a split"):
        TaskRows(path="hf://piqa")
    own, given = Task(name="own", form="problems"), Task(name="own", form="cloze", rows=rows)
    stage = {
        "kind": "pretrain",
        "model": NETWORK,
        "phases": (Phase(name="only", steps=3, mixture={"notes": 1}, context=32, rows=4),),
        "optimizer": Optimizer(lr=1e-3),
    }
    with pytest.raises(ValidationError, match="same name"):
        PretrainStage(**stage, tasks=(own, given))  # type: ignore[arg-type]
    choosing = NETWORK.model_copy(
        update={"hidden": None, "experts": Experts(count=4, top_k=2, hidden=32, choice="expert", balance_loss=0)}
    )
    with pytest.raises(ValidationError, match="task 'own' decodes"):
        PretrainStage(**{**stage, "model": choosing, "tasks": (own,)})  # type: ignore[arg-type]
