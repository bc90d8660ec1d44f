"""Compressed files: bombs are stopped in bounded memory, and a file made of false headers is given up."""

import gzip
from pathlib import Path

import pytest

from glassbox.curate.reading.unpack import BLOCK, EXPANSION, LARGEST, Damage, blocks
from tests.curate import bombs


def assert_stopped(path: Path) -> None:
    size, reasons = 0, []
    for block in blocks(path):
        if isinstance(block, Damage):
            reasons.append(block.reason)
        else:
            assert len(block) <= LARGEST + BLOCK
            size += len(block)
    assert reasons == [f"expands more than {EXPANSION} times"]
    assert size <= LARGEST + EXPANSION * path.stat().st_size


@pytest.mark.parametrize("make", [bombs.gzip_members, bombs.gzip_stream, bombs.zstd_frames])
def test_a_bomb_of_ten_gigabytes_is_stopped(tmp_path: Path, make: object) -> None:
    path = tmp_path / "bomb"
    make(path, 10_000_000_000)
    assert path.stat().st_size < 11_000_000
    assert_stopped(path)


def test_what_is_well_compressed_but_small_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(LARGEST)))
    assert sum(len(block) for block in blocks(path) if isinstance(block, bytes)) == LARGEST


def test_a_file_of_false_headers_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "headers.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00" * 250_000 + gzip.compress(b"never reached"))
    assert [block.reason for block in blocks(path) if isinstance(block, Damage)] == ["damaged gzip"]


def test_an_empty_file_has_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(blocks(tmp_path / "empty")) == []
