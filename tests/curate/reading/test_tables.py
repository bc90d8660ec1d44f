"""Tables: row groups as parts, fields by name, documents of an earlier stage, and damage that is counted."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.curate.parts import Part
from glassbox.curate.reading import tables
from glassbox.curate.reading.raw import Raw
from glassbox.curate.reading.readers import read
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source


def rows_of(path: Path, start: int = 0, stop: int = -1, /, **settings: object) -> list[Raw]:
    source = Source(**{"name": "s", "format": "parquet", "path": str(path), **settings})
    return list(read(source, Part((InputFile(path, path.name),), start, stop)))


def write(path: Path, columns: dict, groups: int = 1_000_000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=groups)
    return path


def test_row_groups_keep_the_rows_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": [f"row {i}" for i in range(1000)]}, 300)
    whole = rows_of(path)
    assert [(row.offset, row.payload) for row in whole] == [(i, b"row %d" % i) for i in range(1000)]
    assert rows_of(path, 0, 1) + rows_of(path, 1, 3) + rows_of(path, 3) == whole


def test_fields_are_taken_by_their_names_in_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        {
            "content": ["int x;", "y"],
            "metadata": [{"link": "http://a.b/c", "stars": 7}, {"link": None, "stars": 0}],
            "max_stars_repo_licenses": [["MIT", "Apache-2.0"], []],
            "path": ["src/x.c", None],
            "title": ["X" * 10_000, ""],
            "repository": [1 << 62, None],
        },
    )
    fields = {
        "text": "content",
        "url": "metadata.link",
        "stars": "metadata.stars",
        "licence": "max_stars_repo_licenses",
    }
    first, second = rows_of(path, fields=fields)
    assert (first.payload, first.url, first.markup) == (b"int x;", "http://a.b/c", False)
    assert json.loads(first.meta) == {
        "title": "X" * 4096,
        "path": "src/x.c",
        "licence": "MIT OR Apache-2.0",
        "stars": 7,
        "repository": 1 << 62,
    }
    assert (second.url, second.meta) == ("", "")


def test_a_page_may_be_text_or_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"page": ["<p>é"], "raw": [b"<p>\xe9"]})
    (text,), (raw,) = rows_of(path, fields={"html": "page"}), rows_of(path, fields={"html": "raw"})
    assert (text.payload, text.charset, text.markup) == ("<p>é".encode(), "utf-8", True)
    assert (raw.payload, raw.charset, raw.markup) == (b"<p>\xe9", "", True)


def test_documents_of_a_stage_keep_what_they_are_known_by(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        {
            "id": ["a" * 32, "b" * 32, "c" * 32],
            "text": ["one", "two", "three"],
            "source": ["web", "code", "web"],
            "origin": ["x.warc.gz", "y.py", "x.warc.gz"],
            "offset": [5, 0, 900],
            "url": ["http://a", None, ""],
            "meta": ["", '{"path":"y.py"}', '{"title":"T"}'],
        },
    )
    web = rows_of(path, name="web", format="documents", path="", stage="earlier")
    assert web == [
        Raw("x.warc.gz", 5, "http://a", b"one", "utf-8", False, "", "a" * 32, ""),
        Raw("x.warc.gz", 900, "", b"three", "utf-8", False, "", "c" * 32, '{"title":"T"}'),
    ]
    (code,) = rows_of(path, name="code", format="documents", path="", stage="earlier")
    assert (code.origin, code.meta) == ("y.py", '{"path":"y.py"}')


def test_a_file_of_another_schema_is_one_counted_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"body": ["x"], "n": [1]})
    assert [row.skipped for row in rows_of(path)] == ["no column 'text', only body, n"]
    assert [row.skipped for row in rows_of(path, format="documents", path="", stage="e")] == [
        "no column 'id', only body, n"
    ]
    assert [row.skipped for row in rows_of(path, fields={"text": "n"})] == ["no text under 'n'"]


def test_invalid_utf8_in_a_column_costs_no_other_row(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"bad \xff\xfe", None]).view(pa.string())
    path = write(tmp_path / "a.parquet", {"text": bad, "url": bad})
    rows = rows_of(path)
    assert [row.payload for row in rows] == [b"good", b"bad \xff\xfe", b""]
    assert [row.skipped for row in rows] == ["", "", "no text under 'text'"]


def test_one_text_a_million_times_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 1_000_000)
    path = write(tmp_path / "a.parquet", {"text": pa.DictionaryArray.from_arrays([0] * 100_000, ["x" * 10_000])})
    rows = rows_of(path)
    assert len(rows) > 1
    assert rows[-1].skipped == "expands more than 100 times"
    assert sum(len(row.payload) for row in rows) < 5_000_000 + 100 * path.stat().st_size


def test_damage_anywhere_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": [f"row {i}" for i in range(500)], "url": ["u"] * 500}, 100)
    whole, chance = path.read_bytes(), random.Random(1)
    reasons = set()
    for _ in range(150):
        hurt = bytearray(whole)
        for place in (chance.randrange(len(hurt)), chance.randrange(len(hurt) - 500, len(hurt))):
            hurt[place] = chance.randrange(256)
        path.write_bytes(hurt)
        rows = rows_of(path)
        assert all(row.payload or row.skipped for row in rows)
        reasons |= {row.skipped.partition(":")[0] for row in rows}
    assert "damaged Parquet" in reasons
    path.write_bytes(b"")
    assert [row.skipped.partition(":")[0] for row in rows_of(path)] == ["damaged Parquet"]
