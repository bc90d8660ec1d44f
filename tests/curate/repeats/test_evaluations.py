"""Evaluation sets are read from all kinds of files; what cannot be read is counted."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.curate.repeats.evaluations import read_evaluations
from glassbox.errors import RequestError
from glassbox.recipe.duplicates import Decontaminate, EvaluationSet

QUESTION = "How many apples does Ann have now if she had {} and ate three of them"


def lines(count: int) -> str:
    return "".join(
        json.dumps({"id": f"q{k}", "question": QUESTION.format(k), "choices": ["one two", "x" * k]}) + "\n"
        for k in range(count)
    )


def one(path: Path, **others: object) -> Decontaminate:
    return Decontaminate(sets=(EvaluationSet(name="mine", path=str(path), **others),))  # type: ignore[arg-type]


def write_all_kinds(folder: Path) -> None:
    (folder / "a.jsonl").write_text(lines(3))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(2).encode()))
    pq.write_table(pa.table({"question": [QUESTION.format("many"), None], "task_id": [7, 8]}), folder / "c.parquet")
    (folder / "d.txt").write_text(f"\n{QUESTION.format('x')}\nWhat is two plus three?\n")
    (folder / "e.md").write_text(QUESTION)


def test_folders_patterns_and_files_of_all_kinds(tmp_path: Path) -> None:
    write_all_kinds(tmp_path)
    known = read_evaluations(one(tmp_path), None)
    (facts,) = known.sets
    assert (facts.items, facts.texts, facts.too_short, facts.skipped) == (6, 7, 1, 0)
    assert [name for _, name in known.names] == ["q0", "q1", "q2", "q0", "q1", "7", "d.txt:2"]
    assert read_evaluations(one(tmp_path / "*.jsonl"), None).sets[0].texts == 3
    assert read_evaluations(one(tmp_path / "c.parquet"), None).sets[0].texts == 1


def test_fields_are_looked_for_on_their_own_and_a_list_is_one_text(tmp_path: Path) -> None:
    rows = [{"question": QUESTION, "choices": ["a b c d", 5, "e f g h"], "answer": {"x": 1}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    known = read_evaluations(one(tmp_path, fields=("question", "choices", "answer", "absent")), None)
    assert known.lengths.tolist() == [15, 8]
    assert [table.length for table in known.tables] == [8, 13]
    assert [len(table.hashes) for table in known.tables] == [1, 3]


def test_held_out_problems_are_a_set(tmp_path: Path) -> None:
    row = {"id": "p1", "question": QUESTION, "solution": "She has " + QUESTION}
    (tmp_path / "held_out.jsonl").write_text(json.dumps(row))
    known = read_evaluations(Decontaminate(), tmp_path)
    assert known.names == (("held_out", "p1"), ("held_out", "p1"))
    assert known.sets[0].items == 1
    assert not read_evaluations(Decontaminate(), None).tables


def test_broken_lines_and_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(2).encode() + b'{"question": \n[1]\n"x"\n\xff\xfe\n')
    whole = gzip.compress("".join(f"{QUESTION} {k * 7919}\n" for k in range(5000)).encode())
    (tmp_path / "b.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d.jsonl").write_bytes(b'{"question": "' + QUESTION.encode() + b' \\ud800"}\n')
    known = read_evaluations(one(tmp_path), None)
    assert known.sets[0].skipped == 7
    assert known.sets[0].texts > 100


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("absent", "holds no"), (".", "holds no"), ("a.jsonl", "set its fields"), ("a**b", "is no pattern")],
)
def test_a_wrong_request_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    if name == "a.jsonl":
        (tmp_path / name).write_text(lines(2))
    with pytest.raises(RequestError, match=sentence):
        read_evaluations(one(tmp_path / name, fields=("prompt",)), None)


def test_a_gram_of_very_many_items_is_credited_to_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"{QUESTION.format(1)} {k}" for k in range(100)))
    (table,) = read_evaluations(one(tmp_path), None).tables
    counts = table.starts[1:] - table.starts[:-1]
    assert sorted(counts.tolist()) == [1] * 100 + [16] * 4
