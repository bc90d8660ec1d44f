"""JSON lines: stretches of a file hold each line once, long lines and broken ones are counted in bounded memory."""

import gzip
import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glassbox.curate.parts import Part
from glassbox.curate.reading import jsonl
from glassbox.curate.reading.jsonl import lines, read_jsonl
from glassbox.curate.reading.raw import Raw
from glassbox.curate.reading.unpack import LARGEST, Damage
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source


def rows_of(path: Path, start: int = 0, stop: int = -1) -> list[Raw]:
    file = InputFile(path, path.name)
    source = Source(name="s", format="jsonl", path=str(path))
    return list(read_jsonl(file, source, Part((file,), start, stop)))


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda data: data.replace(b"a", b"\n")), st.lists(st.integers(0, 70), max_size=4))
def test_stretches_hold_every_line_once(tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]) -> None:
    assume(data[:1] not in (b"\x1f", b"\x28"))  # what compressed files begin with
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(data)
    bounds = [0, *sorted(cuts), 100]
    found = [pair for start, stop in itertools.pairwise(bounds) for pair in lines(path, start, stop)]
    offset, expected = 0, []
    for line in data.split(b"\n"):
        expected.append((offset, line))
        offset += len(line) + 1
    assert found == list(lines(path)) == (expected if expected[-1][1] else expected[:-1])


def test_lines_across_blocks_keep_their_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BLOCK", 2)
    path = tmp_path / "a"
    data = b"one\n\ntwo, which is longer than a block\nthree"
    path.write_bytes(data)
    for cut in range(len(data)):
        found = [*lines(path, 0, cut), *lines(path, cut, -1)]
        assert [data[offset : offset + len(line)] for offset, line in found] == data.split(b"\n")


def test_a_compressed_file_belongs_to_its_first_stretch(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert list(lines(path, 0, 3)) == [(0, b"one"), (4, b"two")]
    assert list(lines(path, 3, -1)) == []


def test_a_line_of_a_hundred_megabytes_is_counted_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "after"}')
    tracemalloc.start()
    rows = rows_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.payload, row.skipped) for row in rows] == [
        (b"before", ""),
        (b"", "line larger than 64 MB"),
        (b"after", ""),
    ]
    assert rows[2].offset == path.stat().st_size - len(b'{"text": "after"}')
    assert peak < 1.2 * LARGEST
    assert [row.payload for row in rows_of(path, 50_000_000, -1)] == [b"after"]
    assert [type(line) for _, line in lines(path, 19, 20)] == [Damage]


def test_what_is_nearly_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    big = b"9" * 5000
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "mark", "score": NaN}\n{"text": "half \\ud800 pair"}\n{"text": "big", "n": '
        + big
        + b"}\n"
    )
    rows = rows_of(path)
    assert [row.payload for row in rows[:2]] == [b"mark", b"half ? pair"]
    assert [row.skipped for row in rows[2:]] == ["broken JSON"]


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'"', b"\\", b"\xff", b"9"])
def test_hostile_lines_are_counted(tmp_path: Path, unit: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(unit * 300_000 + b'\n{"text": "good"}\n')
    rows = rows_of(path)
    assert [row.payload for row in rows] == [b"", b"good"]
    assert rows[0].skipped in ("broken JSON", "invalid UTF-8")


def test_of_a_line_that_goes_on_for_long_only_the_stretch_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 4_000_000 + b"\nlast")
    read: list[int] = []

    def counted(file: Path, start: int) -> Iterator[bytes]:
        with file.open("rb") as opened:
            opened.seek(start)
            while block := opened.read(10_000):
                read.append(len(block))
                yield block

    monkeypatch.setattr(jsonl, "_plain", counted)
    assert list(lines(path, 1_000_000, 2_000_000)) == []
    assert sum(read) <= 1_020_000
    assert list(lines(path, 3_000_000, 4_000_001)) == []
    assert list(lines(path, 3_000_000, 4_000_002)) == [(4_000_001, b"last")]
