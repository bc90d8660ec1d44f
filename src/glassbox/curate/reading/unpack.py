"""Compressed files in bounded memory that survive damage: what is whole before and after a damaged stretch is read.

A gzip file is a row of members, each with its own header. After a member that does not decompress, reading goes on at
the next place that looks like a header. A file that expands beyond all likelihood is read no further.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import zstandard
from fastwarc.stream_io import BrotliReader, ZstdReader

LARGEST = 64_000_000
"""Bytes of the largest document (record, line, file) that is read."""
EXPANSION = 100
"""Bytes that a byte of a compressed file may become, beyond the first LARGEST: text becomes 3 to 20."""
BLOCK = 1 << 16
PIECE = 1 << 10
"""Compressed bytes given to zstd at a time: it makes at most 32,768 bytes of one, so 34 MB of this."""
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Damage:
    """A stretch that could not be read: where it starts in the file, in bytes, and why."""

    offset: int
    reason: str


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip or zstd, told by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    return head.startswith(GZIP_MAGIC) or head == ZSTD_MAGIC


def too_large() -> str:
    """The reason for passing over what is larger than LARGEST."""
    return f"larger than {LARGEST // 1_000_000} MB"


def blocks(path: Path) -> Iterator[bytes | Damage]:
    """Decompressed blocks of a plain, gzip or zstd file (told by its first bytes), with damage in its place."""
    with path.open("rb") as file:
        head = file.read(4)
    if not head.startswith(GZIP_MAGIC) and head != ZSTD_MAGIC:
        with path.open("rb") as file:
            while data := file.read(BLOCK):
                yield data
        return
    allowed = LARGEST + EXPANSION * path.stat().st_size
    for block in _gzip(path) if head != ZSTD_MAGIC else _zstd(path):
        if isinstance(block, bytes):
            allowed -= len(block)
            if allowed < 0:
                yield Damage(0, f"expands more than {EXPANSION} times")
                return
        yield block


def expanded(data: bytes, coding: str) -> bytes:
    """The body that HTTP's Content-Encoding `coding` packed, at most LARGEST bytes and a piece of it.

    A body that does not begin as gzip or zstd does is taken for one that was unpacked before it was stored; of one that
    is cut off, what there is is given. Raises OSError for what is damaged or packed in an unknown way.
    """
    if not data or coding in ("", "identity", "none"):
        return data
    if coding in ("gzip", "x-gzip", "deflate"):
        if coding != "deflate" and not data.startswith(GZIP_MAGIC[:2]):
            return data
        return _inflated(data, 31 if coding != "deflate" else 15 if data[0] & 15 == 8 else -15)
    if coding == "zstd" and not data.startswith(ZSTD_MAGIC):
        return data
    reader = {"br": BrotliReader, "zstd": ZstdReader}.get(coding)
    if reader is None:
        raise OSError("compressed more than once" if "," in coding else "unknown encoding")
    opened = reader(BytesIO(data))
    pieces, size = [], 0
    while size <= LARGEST and (piece := opened.read(BLOCK)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _inflated(data: bytes, window: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        found = unpacker.decompress(data, LARGEST + 1)
    except zlib.error as error:
        raise OSError("damaged gzip") from error
    if not found and not unpacker.eof:
        raise OSError("cut off record")
    return found


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
    patience = LARGEST + path.stat().st_size
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
                    yield member.decompress(pending, 16 * BLOCK)
                except zlib.error:
                    reason = "damaged gzip"
                    break
                rest = member.unused_data or member.unconsumed_tail
                read += len(pending) - len(rest)
                pending = rest
                if member.eof:
                    # The member is whole; what follows is the next one, or padding.
                    start, read, reported, member = start + read, 0, False, zlib.decompressobj(31)
                    pending = pending if pending.strip(b"\0") else b""
        if not reason:
            return
        if not reported:
            yield Damage(start, reason)
        reported = True
        # What looks like a header may be none; a file made of such places is given up.
        patience -= max(read, BLOCK // 16)
        start = find(path, GZIP_MAGIC, start + 1) if patience > 0 else -1


def _zstd(path: Path) -> Iterator[bytes | Damage]:
    offset = 0
    with path.open("rb") as file:
        frame, inside = zstandard.ZstdDecompressor().decompressobj(), False
        while pending := file.read(PIECE):
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
