"""Labels from every kind of file, from documents and from a judge; bad ones are counted or one sentence."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from glassbox.curate.models import judging
from glassbox.curate.models.labels import names_of, read_labels
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Artefact, Inputs
from glassbox.recipe.classify import Judge, LabelFile, Labels


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(tmp_path, *files, task="classes", inputs=None, **more):
    return read_labels(Labels(files=files, **more), task, inputs or Inputs(), tmp_path / "work")


def documents(tmp_path, n=50):
    folder = tmp_path / "curated" / "documents"
    folder.mkdir(parents=True)
    rows = {"id": [f"{i:032x}" for i in range(n)], "text": [f"document {i}" if i else " " for i in range(n)]}
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])
    pq.write_table(pa.table(rows, schema), folder / "documents-000000.parquet")
    return Inputs((Artefact("curated", "documents", folder.parent),))


def test_every_kind_of_file(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("first essay")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"second \xff essay"))
    (folder / "ignored.png").write_bytes(b"x")
    table = pa.table({"body": ["third", None], "n": [1, 2]})
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "l.jsonl.gz").write_bytes(
        gzip.compress(b'{"text": "fourth", "tag": "news"}\n{"text": "x"}\nnonsense\n\n[]\n')
    )
    found = read(
        tmp_path,
        LabelFile(path=str(folder), label="essay"),
        LabelFile(path=str(tmp_path / "*.parquet"), text="body", label="field:n"),
        LabelFile(path=str(tmp_path / "l.jsonl.gz"), label="field:tag"),
    )
    assert list(zip(found.texts, found.labels, strict=True)) == [
        ("first essay", "essay"), ("second � essay", "essay"), ("third", "1"), ("fourth", "news")
    ]  # fmt: skip
    assert found.left_out == {
        "no text under 'body'": 1, "no label under 'tag'": 1, "broken JSON": 1, "not a JSON object": 1
    }  # fmt: skip
    assert names_of(found.labels) == ("1", "essay", "news")


def test_a_text_counts_once_and_with_two_labels_not_at_all(tmp_path):
    rows = [{"text": text, "label": label} for text, label in ("aA", "aA", "bA", "bB", "cB")]
    found = read(tmp_path, LabelFile(path=write(tmp_path / "l.jsonl", *rows), label="field:label"))
    assert found.texts == ["a", "c"]
    assert found.left_out == {"repeated text": 2, "text with two labels": 1}


def test_a_limit_counts_labelled_texts(tmp_path):
    rows = [{"text": f"{i}" if i % 2 else ""} for i in range(100)]
    found = read(tmp_path, LabelFile(path=write(tmp_path / "l.jsonl", *rows), label="x", limit=3))
    assert found.texts == ["1", "3", "5"]


def test_scores_have_names_or_one(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a", "s": 3}, {"text": "b", "s": {"depth": 1.5, "style": None}})
    found = read(tmp_path, LabelFile(path=path, label="field:s"), task="scores")
    assert found.labels == [{"score": 3.0}, {"depth": 1.5}]
    assert names_of(found.labels) == ("depth", "score")


@pytest.mark.parametrize("value", ["high", True, {"a": "x"}, {}, [1]])
def test_what_is_no_number_is_named(tmp_path, value):
    path = write(tmp_path / "a.jsonl", {"text": "fine", "s": 1}, {"text": "a", "s": value})
    with pytest.raises(RequestError, match=r"a\.jsonl, line 2: .* is no score"):
        read(tmp_path, LabelFile(path=path, label="field:s"), task="scores")


def test_what_is_no_class_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a", "s": 0.5})
    with pytest.raises(RequestError, match=r"0\.5 is no class"):
        read(tmp_path, LabelFile(path=path, label="field:s"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"label": ""}, "needs a label"),
        ({"path": "t.parquet", "label": "field:none"}, "no column 'none', only text"),
        ({"path": "empty"}, "holds no .jsonl"),
    ],
)
def test_files_that_are_not_as_the_recipe_says(tmp_path, changed, sentence):
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    file = {"path": "t.parquet", "label": "x", **changed}
    with pytest.raises(RequestError, match=sentence):
        read(tmp_path, LabelFile(**{**file, "path": str(tmp_path / file["path"])}))


def test_damaged_files_are_counted(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    whole = gzip.compress(b'{"text": "one"}\n' * 1 + b'{"text": "two"}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(whole[:-6])
    found = read(
        tmp_path,
        LabelFile(path=str(tmp_path / "a.parquet"), label="x"),
        LabelFile(path=str(tmp_path / "b.jsonl.gz"), label="y"),
    )
    assert found.left_out["damaged Parquet"] == 1
    assert set(found.texts) <= {"one", "two"}
    assert sum(found.left_out.values()) >= 2


def test_a_sample_of_the_documents_is_a_class(tmp_path):
    inputs = documents(tmp_path)
    path = write(tmp_path / "l.jsonl", {"text": "good"})
    found = read(tmp_path, LabelFile(path=path, label="hq"), inputs=inputs, documents="cc", documents_limit=10)
    assert found.labels == ["hq"] + ["cc"] * 10
    more = read(tmp_path, LabelFile(path=path, label="hq"), inputs=inputs, documents="cc", documents_limit=20)
    assert more.texts[:11] == found.texts
    every = read(tmp_path, LabelFile(path=path, label="hq"), inputs=inputs, documents="cc")
    assert len(every.texts) == 50  # 49 that are not blank
    with pytest.raises(RequestError, match="no stage in `from`"):
        read(tmp_path, LabelFile(path=path, label="hq"), documents="cc")


def test_a_judge_labels_a_sample(tmp_path, monkeypatch):
    def answers(questions, judge, folder, check):
        assert all("hq, low" in question for question in questions)
        return ["hq" if "document 1" in one else "low" if "document 2" in one else "hm" for one in questions]

    monkeypatch.setattr(judging, "_answers", answers)
    judge = Judge(url="http://here", model="m", classes=("hq", "low"), documents=49)
    found = read(tmp_path, inputs=documents(tmp_path), judge=judge)
    assert set(found.labels) == {"hq", "low"}
    assert len(found.texts) == 22
    assert found.left_out == {"no clear answer of the judge": 27}


def test_a_judge_without_classes_is_refused():
    with pytest.raises(ValidationError, match="needs `classes`"):
        Labels(judge=Judge(url="http://here", model="m"))
