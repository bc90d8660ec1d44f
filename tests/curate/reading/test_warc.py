"""WARC files: real ones, hurt ones, and what is no WARC at all."""

import gzip
import io
import random
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter
from fastwarc.warc import ArchiveIterator, WarcRecordType

from glassbox.curate.reading.unpack import LARGEST, Damage
from glassbox.curate.reading.warc import Page, pages
from tests.curate import bombs


def split(path: Path) -> tuple[list[Page], list[Damage]]:
    found = list(pages(path))
    return [p for p in found if isinstance(p, Page)], [d for d in found if isinstance(d, Damage)]


@pytest.fixture
def web(data: Path) -> Path:
    return data / "warc" / "resiliparse" / "warcfile.warc.gz"


def test_pages_of_a_whole_file_have_their_offsets(web: Path) -> None:
    found, damage = split(web)
    assert not damage
    assert len(found) == 16
    with web.open("rb") as file:
        for page in found:
            file.seek(page.offset)
            record = next(iter(ArchiveIterator(file, record_types=WarcRecordType.response)))
            assert record.headers["WARC-Target-URI"] == page.url
            assert record.reader.read() == page.payload


@pytest.mark.parametrize("hurt", ["zeroed", "missing", "truncated", "request"])
def test_damage_in_the_middle_costs_one_record_and_is_reported_once(web: Path, tmp_path: Path, hurt: str) -> None:
    data, whole = web.read_bytes(), split(web)[0]
    with web.open("rb") as file:
        starts = [record.stream_pos for record in ArchiveIterator(file)] + [len(data)]
    at = whole[5].offset
    end = starts[starts.index(at) + 1]
    before = starts[starts.index(at) - 1]
    changed = {
        "zeroed": data[: at + 200] + bytes(60) + data[at + 260 :],
        "missing": data[: at + 200] + data[at + 400 :],
        "truncated": data[: at + 100] + data[end:],
        "request": data[: before + 60] + data[at:],
    }[hurt]
    path = tmp_path / "hurt.warc.gz"
    path.write_bytes(changed)
    found, damage = split(path)
    lost = [] if hurt == "request" else [whole[5].url]
    assert [page.url for page in found] == [page.url for page in whole if page.url not in lost]
    assert [(d.offset, d.reason) for d in damage] == [(before if hurt == "request" else at, "damaged gzip")]


def test_a_file_cut_off_at_its_end_keeps_what_came_before(web: Path, tmp_path: Path) -> None:
    whole = split(web)[0]
    path = tmp_path / "cut.warc.gz"
    path.write_bytes(web.read_bytes()[: whole[3].offset + 500])
    found, damage = split(path)
    assert [page.payload for page in found] == [page.payload for page in whole[:3]]
    assert [(d.offset, d.reason) for d in damage] == [(whole[3].offset, "cut off record")]


def test_collected_specimens_are_read_or_reported(data: Path) -> None:
    counts = {}
    for path in sorted((data / "warc").rglob("*arc*")):
        if path.is_file() and "LICENSE" not in path.name:
            counts[path.name] = dict(Counter("page" if isinstance(p, Page) else p.reason for p in pages(path)))
    assert counts["example.warc"] == counts["example.warc.gz"] == {"page": 1}
    assert counts["example.arc"] == counts["example.arc.gz"] == counts["bad.arc"] == {"not a WARC record": 1}
    assert counts["clipped.warc.gz"] == {"cut off record": 1}
    assert counts["example-trunc.warc"] == {"page": 1, "not a WARC record": 1}
    assert counts["example-wrong-chunks.warc.gz"] == counts["example-bad-non-chunked.warc.gz"] == {"page": 1}
    assert counts["whirlwind.warc.wet.gz"] == {"page": 1}
    assert counts["dolma-sample-0000.warc.gz"] == {"page": 24}
    assert counts["IAH-urls-wget.warc.gz"]["HTTP status 302"] == 7
    assert counts["post-test.warc.gz"] == {"content type application/json": 3}


def test_an_empty_file_and_one_of_noise(tmp_path: Path) -> None:
    for name, data, expected in (("a.warc", b"", []), ("b.warc", b"noise\n" * 100, ["not a WARC record"])):
        (tmp_path / name).write_bytes(data)
        assert [d.reason for d in split(tmp_path / name)[1]] == expected


@pytest.mark.parametrize("unit", [b"\0", b"\n", b"A: b\r\n"])
def test_a_bomb_is_stopped(tmp_path: Path, unit: bytes) -> None:
    path = tmp_path / "bomb.warc.gz"
    first = gzip.compress(bombs.response(b"<p>first"))
    bombs.gzip_stream(path, 10_000_000_000, b"WARC/1.0\r\nContent-Length: 10000000000\r\n\r\n" * (unit == b"\0"), unit)
    path.write_bytes(first + path.read_bytes())
    found, damage = split(path)
    assert [page.payload for page in found] == [b"<p>first"]
    assert damage[-1].reason == ("not a WARC record" if unit == b"A: b\r\n" else "expands without end")
    assert len(damage) <= 2


def brotli(body: bytes) -> bytes:
    packed = io.BytesIO()
    with BrotliWriter(packed) as writer:
        writer.write(body)
    return packed.getvalue()


CODINGS = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli,
    b"zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("name", list(CODINGS))
def test_a_page_that_expands_without_end_is_stopped_and_the_next_is_read(tmp_path: Path, name: bytes) -> None:
    pack, coding = CODINGS[name], b"Content-Encoding: %s\r\n"
    bomb = bombs.response(pack(bytes(100_000_000)), coding % name)
    good = bombs.response(pack(b"<p>good"), coding % name)
    twice = bombs.response(pack(pack(b"<p>twice")), coding % (name + b", " + name))
    (tmp_path / "a.warc").write_bytes(bomb + good + twice)
    found, damage = split(tmp_path / "a.warc")
    assert [page.payload for page in found] == [b"<p>good"]
    assert [d.reason for d in damage] == ["larger than 64 MB", "compressed more than once"]


def test_bodies_that_are_not_what_their_headers_say(tmp_path: Path) -> None:
    body = b"<p>words " * 2000
    records = [
        bombs.response(body, b"Content-Encoding: gzip\r\n"),
        bombs.response(gzip.compress(body)[:-20], b"Content-Encoding: x-gzip\r\n"),
        bombs.response(zlib.compress(body, 9, -15), b"Content-Encoding: deflate\r\n"),
        bombs.response(b"5\r\n<p>ab\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
        bombs.response(body, b"Content-Encoding: rot13\r\n"),
        bombs.response(b"\x1f\x8b\x08" + b"\xff" * 50, b"Content-Encoding: gzip\r\n"),
        bombs.response(body, b"Transfer-Encoding: gzip, chunked\r\n"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    found, damage = split(tmp_path / "a.warc")
    assert [page.payload for page in found[::2]] == [body, body]
    assert [body.startswith(page.payload) for page in found] == [True, True, True, False]
    assert found[3].payload == b"<p>ab"
    assert [d.reason for d in damage] == ["unknown encoding", "damaged gzip", "unknown encoding"]


def test_a_record_that_is_too_large_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(bombs.response(bytes(LARGEST)) + bombs.response(b"<p>good"))
    found, damage = split(path)
    assert [page.payload for page in found] == [b"<p>good"]
    assert [d.reason for d in damage] == ["larger than 64 MB"]


def test_a_file_of_false_starts_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"WARC/1.\n" * 500_000)
    assert [d.reason for d in split(tmp_path / "a.warc")[1]] == ["not a WARC record"]


def test_undamaged_files_hold_as_many_records_as_their_list_says(data: Path) -> None:
    damaged = ("bad", "trunc", "wrong", "clipped", ".arc", "resource")
    files = [path for path in (data / "warc").rglob("*arc*") if path.is_file() and "LICENSE" not in path.name]
    whole = [path for path in files if not any(part in path.name for part in damaged)]
    assert sum(len([*pages(path)]) for path in whole) == 68


def test_flipped_bytes_never_raise(web: Path, tmp_path: Path) -> None:
    plain, chance = gzip.decompress(web.read_bytes())[:60_000], random.Random(1)
    path = tmp_path / "hurt.warc"
    seen = set()
    for _ in range(300):
        hurt = bytearray(plain)
        for _ in range(chance.choice([1, 30])):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        path.write_bytes(hurt)
        seen |= {"page" if isinstance(found, Page) else found.reason for found in pages(path)}
    assert {"page", "cut off record"} <= seen
