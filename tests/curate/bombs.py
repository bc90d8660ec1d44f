"""Files that expand without end, made in a moment."""

import gzip
import zlib
from pathlib import Path

import zstandard


def gzip_members(path: Path, expanded: int) -> None:
    """Many members of 100 MB of zeros."""
    member = gzip.compress(bytes(100_000_000), 6)
    path.write_bytes(member * (expanded // 100_000_000))


def gzip_stream(path: Path, expanded: int, head: bytes = b"", unit: bytes = b"\0") -> None:
    """One member of `head` and then `unit` over and over; its check sum is never reached."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = packer.compress(unit * (50_000_000 // len(unit))) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + chunk * (expanded // 50_000_000))


def zstd_frames(path: Path, expanded: int) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(100_000_000))
    path.write_bytes(frame * (expanded // 100_000_000))


def response(body: bytes, headers: bytes = b"") -> bytes:
    """A WARC response record of a page."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + body
    head = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: application/http;"
    return head + b" msgtype=response\r\nContent-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n"
