"""Compressed files in bounded memory that survive damage: what is whole before and after a damaged stretch is read.

A gzip file is a row of members, each with its own header. After a member that does not decompress, reading goes on at
the next place that looks like a header.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

BLOCK = 1 << 16
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Damage:
    """A stretch that could not be read: where it starts in the file, in bytes, and why."""

    offset: int
    reason: str


def blocks(path: Path) -> Iterator[bytes | Damage]:
    """Decompressed blocks of a plain, gzip or zstd file (told by its first bytes), with damage in its place."""
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(GZIP_MAGIC):
        yield from _gzip(path)
    elif head == ZSTD_MAGIC:
        yield from _zstd(path)
    else:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block


def find(path: Path, magic: bytes, start: int) -> int:
    """Offset of the first `magic` at or after `start`; -1 if there is none."""
    with path.open("rb") as file:
        file.seek(start)
        offset, tail = start, b""
        while block := file.read(BLOCK):
            data = tail + block
            if (at := data.find(magic)) >= 0:
                return offset - len(tail) + at
            offset += len(block)
            tail = data[-len(magic) + 1 :]
    return -1


def _gzip(path: Path) -> Iterator[bytes | Damage]:
    start, reported = 0, False
    while start >= 0:
        read, reason = 0, ""
        with path.open("rb") as file:
            file.seek(start)
            member, pending = zlib.decompressobj(31), b""
            while True:
                pending = pending or file.read(BLOCK)
                if not pending:
                    reason = "truncated gzip" if read else ""
                    break
                try:
                    yield member.decompress(pending)
                except zlib.error:
                    reason = "damaged gzip"
                    break
                read += len(pending) - len(member.unused_data)
                pending = member.unused_data
                if member.eof:
                    # The member is whole; what follows is the next one, or padding.
                    start, read, reported, member = start + read, 0, False, zlib.decompressobj(31)
                    pending = pending if pending.strip(b"\0") else b""
        if not reason:
            return
        if not reported:
            yield Damage(start, reason)
        reported = True
        start = find(path, GZIP_MAGIC, start + 1)


def _zstd(path: Path) -> Iterator[bytes | Damage]:
    offset = 0
    with path.open("rb") as file:
        frame, inside = zstandard.ZstdDecompressor().decompressobj(), False
        while pending := file.read(BLOCK):
            while pending:
                inside = True
                try:
                    yield frame.decompress(pending)
                except zstandard.ZstdError:
                    yield Damage(offset, "damaged zstd")
                    return
                offset += len(pending) - len(frame.unused_data)
                pending = frame.unused_data
                if frame.eof:
                    frame, inside = zstandard.ZstdDecompressor().decompressobj(), False
    if inside:
        yield Damage(offset, "truncated zstd")
