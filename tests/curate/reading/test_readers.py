"""Readers: offsets that lead back to the bytes, and damage that becomes counted rows."""

import gzip
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from glassbox.curate.parts import Part
from glassbox.curate.reading.readers import RAW_SCHEMA, Raw, batches, read
from glassbox.curate.reading.unpack import LARGEST, Damage, blocks
from glassbox.errors import RequestError
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source


def rows_of(path: Path, file_format: str, **settings: object) -> list[Raw]:
    source = Source(name="s", format=file_format, path=str(path), **settings)
    return list(read(source, Part((InputFile(path, path.name),))))


def test_jsonl_offsets_lead_back_to_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"déjà {i}", "url": f"u{i}"}, ensure_ascii=False).encode() for i in range(50)]
    path.write_bytes(b"\n".join(lines))
    rows = rows_of(path, "jsonl")
    data = path.read_bytes()
    assert [row.payload.decode() for row in rows] == [f"déjà {i}" for i in range(50)]
    for row, line in zip(rows, lines, strict=True):
        assert data[row.offset : row.offset + len(line)] == line


def test_broken_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = b'{"text": "\xff\xfe"}\n{"text": "cut\n{"other": 1}\n[1]\n{"text": null}\n\n'
    path.write_bytes(b'{"text": "one"}\n' + bad + b'{"text": "two"}')
    rows = rows_of(path, "jsonl")
    assert [row.payload for row in rows if not row.skipped] == [b"one", b"two"]
    reasons = [row.skipped for row in rows if row.skipped]
    assert reasons == ["invalid UTF-8", "broken JSON", "no text under 'text'", "no JSON object", "no text under 'text'"]
    assert [row.offset for row in rows][:3] == [0, 16, 31]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_jsonl_reads_like_plain(tmp_path: Path, pack: object) -> None:
    path = tmp_path / "packed"
    path.write_bytes(pack(b'{"text": "a"}\n') + pack(b'{"text": "b"}\n'))
    assert [(row.offset, row.payload) for row in rows_of(path, "jsonl")] == [(0, b"a"), (14, b"b")]


def noise(n: int, seed: int) -> bytes:
    return b"".join(b'{"text": "%x"}\n' % random.Random(seed * 10**6 + i).getrandbits(400) for i in range(n))


def test_truncated_and_damaged_gzip_members_lose_only_themselves(tmp_path: Path) -> None:
    members = [gzip.compress(noise(300, seed)) for seed in range(4)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"".join(members))
    assert len(rows_of(path, "jsonl")) == 1200
    hurt = bytearray(members[1])
    hurt[len(hurt) // 2 : len(hurt) // 2 + 40] = bytes(40)
    path.write_bytes(members[0] + bytes(hurt) + members[2] + members[3][: len(members[3]) // 2])
    rows = rows_of(path, "jsonl")
    good = [row.payload for row in rows if not row.skipped]
    assert [row.skipped for row in rows if "gzip" in row.skipped] == ["damaged gzip", "truncated gzip"]
    whole = [json.loads(line)["text"].encode() for seed in (0, 2) for line in noise(300, seed).splitlines()]
    assert set(whole) <= set(good)
    assert len(good) > 600


def test_truncated_and_damaged_zstd_is_reported(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(noise(3000, 1))
    for name, data in (("cut", packed[: len(packed) // 2]), ("hurt", packed[:2000] + bytes(100) + packed[2100:])):
        path = tmp_path / name
        path.write_bytes(data)
        assert [block for block in blocks(path) if isinstance(block, Damage)], name


def test_a_gzip_file_followed_by_padding_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "padded"
    path.write_bytes(gzip.compress(b"text") + bytes(512))
    assert b"".join(block for block in blocks(path) if isinstance(block, bytes)) == b"text"
    assert not [block for block in blocks(path) if isinstance(block, Damage)]


def test_parquet_rows_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["one", None, "three"], "url": ["u", "v", "w"]}), path)
    rows = rows_of(path, "parquet", fields={"text": "body"})
    assert [(row.offset, row.payload, row.url) for row in rows if not row.skipped] == [
        (0, b"one", "u"),
        (2, b"three", "w"),
    ]
    assert [row.skipped for row in rows_of(path, "parquet")] == ["no column 'text', only body, url"]
    path.write_bytes(path.read_bytes()[:100])
    assert [row.skipped.partition(":")[0] for row in rows_of(path, "parquet")] == ["damaged Parquet"]


def test_a_limit_counts_documents_not_skips(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'bad\n{"text": "a"}\nbad\n{"text": "b"}\n{"text": "c"}\n')
    assert [row.payload for row in rows_of(path, "jsonl", limit=2)] == [b"", b"a", b"", b"b"]


def test_batches_are_bounded_and_keep_order() -> None:
    rows = [Raw("o", i, "", b"x" * (6_000_000 if i % 100 == 0 else 10), "", False, "") for i in range(1300)]
    out = list(batches(rows))
    assert all(batch.schema == RAW_SCHEMA and len(batch) <= 512 for batch in out)
    assert [offset for batch in out for offset in batch["offset"].to_pylist()] == list(range(1300))
    assert max(batch["payload"].nbytes for batch in out) < 25_000_000


def test_hugging_face_data_sets_stream_from_local_files(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"content": f"row {i}"}) + "\n" for i in range(5)))
    source = Source(name="s", format="hf", path=f"hf://{tmp_path}", fields={"text": "content"}, limit=3)
    assert [(row.offset, row.payload) for row in read(source, Part(()))] == [(i, b"row %d" % i) for i in range(3)]
    missing = Source(name="s", format="hf", path=f"hf://{tmp_path}/nothing")
    with pytest.raises(RequestError, match="cannot be streamed"):
        list(read(missing, Part(())))


def test_an_unreadable_file_is_a_skipped_row(tmp_path: Path) -> None:
    assert [row.skipped for row in rows_of(tmp_path / "gone.txt", "text")] == ["No such file or directory"]


def test_the_magic_number_can_lie_inside_a_member(tmp_path: Path) -> None:
    """Damage before bytes that look like a header: the false start gives no second report."""
    body = zlib.compress(b"x")[:2] + b"\x1f\x8b\x08 not a header " * 20
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    member = stored.compress(body) + stored.flush()
    path = tmp_path / "a.gz"
    path.write_bytes(b"\x1f\x8b\x08" + bytes(20) + b"\xff" * 30 + member[3:] + gzip.compress(b"tail\n"))
    found = list(blocks(path))
    assert len([block for block in found if isinstance(block, Damage)]) == 1
    assert b"".join(block for block in found if isinstance(block, bytes)).endswith(b"tail\n")


def test_what_is_no_regular_file_is_a_skipped_row(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", tmp_path, Path("/dev/zero")):
        for file_format in ("text", "jsonl", "warc", "parquet"):
            assert [row.skipped for row in rows_of(path, file_format)] == ["no regular file"]


def test_odd_names_and_empty_files(tmp_path: Path) -> None:
    names = [b"new\nline.txt", b"\xff\xfe.txt", " caf\u00e9 *?.txt".encode(), b"-rf.txt"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"")
    files = tuple(InputFile(path, path.name) for path in sorted(tmp_path.iterdir()))
    rows = list(read(Source(name="s", format="text", path=str(tmp_path)), Part(files)))
    assert [(row.payload, row.skipped) for row in rows] == [(b"", "")] * 4
    (batch,) = batches(rows)
    assert sorted(batch["origin"].to_pylist()) == sorted(name.decode("utf-8", "replace") for name in names)


def test_code_knows_its_path_and_whole_files_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_bytes(gzip.compress(b"x = 1\n"))
    (row,) = rows_of(path, "code")
    assert (row.payload, json.loads(row.meta), row.markup) == (b"x = 1\n", {"path": "x.py"}, False)
    path.write_bytes(bytes(LARGEST + 1))
    assert [row.skipped for row in rows_of(path, "code")] == ["larger than 64 MB"]


def test_a_hugging_face_folder_of_a_data_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for folder in ("python", "java"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps({"text": folder, "licence": ["MIT"]}) + "\n")
    source = Source(name="s", format="hf", path=f"hf://{tmp_path}", subset="java")
    (row,) = read(source, Part(()))
    assert (row.payload, json.loads(row.meta)) == (b"java", {"licence": "MIT"})


@pytest.mark.parametrize("kind", ["zstd", "http", "warc", "text", "line"])
def test_hostile_files_are_read_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """In a process of its own, whose peak memory is measured beside what importing took."""
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, kind, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    before, peak, reasons = json.loads(done.stdout)
    assert reasons[0] != ""
    assert peak - before < 4 * LARGEST


HOSTILE = """
import gzip, json, resource, sys
from pathlib import Path
from glassbox.curate.parts import Part
from glassbox.curate.reading.readers import batches, read
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source
from tests.curate import bombs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "zstd":
    bombs.zstd_frames(path, 10_000_000_000)
elif kind == "warc":
    bombs.gzip_stream(path, 10_000_000_000)
elif kind == "http":
    bombs.gzip_members(path, 1_000_000_000)
    path.write_bytes(bombs.response(path.read_bytes(), b"Content-Encoding: gzip\\r\\n"))
elif kind == "line":
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 1_000_000)
else:
    bombs.gzip_members(path, 10_000_000_000)
before = peak()
formats = {"http": "warc", "warc": "warc", "text": "text"}
source = Source(name="s", format=formats.get(kind, "jsonl"), path=str(path))
found = batches(read(source, Part((InputFile(path, "o"),))))
reasons = [row for batch in found for row in batch["skipped"].to_pylist()]
print(json.dumps([before, peak(), reasons]))
"""
