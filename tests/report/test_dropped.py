"""Counts of dropped documents against counting by hand, over files of several shapes."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.report.dropped import dropped, samples
from tests.report.curation_facts import DROPS, name_of, write_dropped
from tests.report.curation_facts import samples as example_samples


def facts_of(folder: Path) -> tuple[Any, Any]:
    notes: list[str] = []
    return SimpleNamespace(path=folder, note=notes.append, notes=notes), SimpleNamespace(folder=folder)


def test_every_dropped_document_is_counted_once(tmp_path: Path) -> None:
    write_dropped(tmp_path / "dropped", DROPS)
    rows = dropped(*facts_of(tmp_path))
    by_hand: Counter[str] = Counter()
    for _, _, rule, documents, _, _ in DROPS:
        by_hand[rule] += documents
    assert {row.rule: row.documents for row in rows} == dict(by_hand)
    assert [row.documents for row in rows] == sorted(by_hand.values(), reverse=True)
    assert rows[0].share == 1.0
    longest = next(row for row in rows if row.rule == "code_max_longest_line")
    assert (longest.values, longest.threshold, longest.characters) == ("20.4 to 1,204", "1,000", "59,000")


def test_files_without_values_and_with_one_source(tmp_path: Path) -> None:
    (tmp_path / "dropped").mkdir()
    table = {"source": ["s"] * 3, "stage": ["judge"] * 3, "rule": ["wrong answer", "cut off", "cut off"]}
    pq.write_table(pa.table(table), tmp_path / "dropped" / "a.parquet")
    rows = dropped(*facts_of(tmp_path))
    assert [(row.rule, row.documents, row.values, row.threshold) for row in rows] == [
        ("cut off", 2, "–", "–"),
        ("wrong answer", 1, "–", "–"),
    ]
    assert {row.sources for row in rows} == {""}


def test_files_with_other_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "dropped").mkdir()
    pq.write_table(pa.table({"rule": ["x"]}), tmp_path / "dropped" / "a.parquet")
    (tmp_path / "dropped" / "b.parquet").write_bytes(b"PAR1")
    facts, stage = facts_of(tmp_path)
    assert dropped(facts, stage) == []
    assert len(facts.notes) == 2
    assert dropped(*facts_of(tmp_path / "nothing")) == []


def test_samples_stand_in_the_order_of_the_rules() -> None:
    kept, removed = samples(example_samples(), ["minhash_similarity", "reference_min_words"])
    assert [rule for rule, _ in removed] == [
        "minhash_similarity",
        "reference_min_words",
        "code_max_longest_line",
        "evaluation_ngrams",
    ]
    assert [one.source for one in kept[:4]] == ["web", "code", "web", "code"]
    first = dict(removed)["minhash_similarity"][0]
    assert first.reason == f"minhash_similarity: 0.93, threshold 0.8, like {name_of('k0')[:12]}"
    assert first.id == name_of("d3")[:12]


def test_samples_of_solutions_show_the_answer_they_give() -> None:
    wrong = {"id": name_of("s"), "text": "2 + 2 = 1/2", "stage": "verified", "rule": "wrong_answer", "other": "1/2"}
    row = {**wrong, "value": None, "threshold": None}
    ((rule, (sample,)),) = samples({"kept": [], "dropped": [row]}, [], explained=False)[1]
    assert (rule, sample.reason, sample.id) == ("wrong_answer", "wrong_answer, answers 1/2", "")
