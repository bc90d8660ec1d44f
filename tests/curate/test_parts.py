"""Parts cover every byte and row group once, whatever the sizes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.curate import parts
from glassbox.curate.reading.readers import read
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source


def files_in(folder: Path, pattern: str) -> list[InputFile]:
    return [InputFile(path, path.name) for path in sorted(folder.glob(pattern))]


def test_a_long_jsonl_file_is_read_once_whatever_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f'{{"text": "document {n} {"x" * (n * 37 % 90)}"}}' for n in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    source = Source(name="a", format="jsonl", path=str(tmp_path))
    whole = [raw.payload for raw in read(source, parts.Part(tuple(files_in(tmp_path, "*"))))]
    assert len(whole) == 200
    for size in (1, 17, 100, 1000, 5000, 10**6):
        monkeypatch.setattr(parts, "PART_BYTES", size)
        found = list(parts.parts_of(source, files_in(tmp_path, "*")))
        assert (len(found) > 1) == (size < 10**6)
        if size >= 100:
            assert [raw.payload for part in found for raw in read(source, part)] == whole


def test_row_groups_of_a_parquet_file_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {n}" for n in range(300)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=20)
    source = Source(name="a", format="parquet", path=str(tmp_path))
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    found = list(parts.parts_of(source, files_in(tmp_path, "*")))
    assert len(found) > 3
    assert [raw.payload.decode() for part in found for raw in read(source, part)] == texts
    assert [raw.offset for part in found for raw in read(source, part)] == list(range(300))


@given(st.lists(st.integers(0, 50), max_size=30))
def test_small_files_are_grouped_in_order(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("files")
    for n, size in enumerate(sizes):
        (folder / f"{n:03d}.txt").write_bytes(b"x" * size)
    source = Source(name="a", format="text", path=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 60)
        found = list(parts.parts_of(source, files_in(folder, "*")))
    assert [file for part in found for file in part.files] == files_in(folder, "*")
    totals = [sum(file.path.stat().st_size for file in part.files) for part in found]
    assert all(total <= 60 for total in totals)
    heads = [part.files[0].path.stat().st_size for part in found]
    assert all(total + head > 60 for total, head in zip(totals, heads[1:], strict=False))


def test_a_limited_source_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 10)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' * 50)
    source = Source(name="a", format="jsonl", path=str(tmp_path), limit=7)
    (part,) = parts.parts_of(source, files_in(tmp_path, "*"))
    assert len(list(read(source, part))) == 7
