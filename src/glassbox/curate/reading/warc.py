"""Pages of WARC files, gzipped or not, whole or damaged, with the byte offset of each record."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from fastwarc.stream_io import ChunkedReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from glassbox.curate.reading.unpack import BLOCK, GZIP_MAGIC, LARGEST, Damage, expanded, find, too_large

RECORDS = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
"""Records that can hold a document: web pages, files, and text made from them (WET)."""
MARKUP = ("text/html", "application/xhtml+xml")
MEDIA = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,80}")
ATTEMPTS = 1000
"""How often reading goes on after damage, and once more for every BLOCK bytes of the file."""
REASONS = (
    ("ecompress", "damaged gzip"),
    ("header", "not a WARC record"),
    ("end of file", "cut off record"),
    ("-Encoding", "unknown encoding"),
    ("unknown encoding", "unknown encoding"),
    ("more than once", "compressed more than once"),
    ("damaged gzip", "damaged gzip"),
    ("cut off", "cut off record"),
)
"""What stands in a message of the reader -> the reason we give."""
PROBE, PERIOD, REPEATS = 4096, 16, 32
"""Compressed data in which PERIOD bytes recur REPEATS times within PROBE bytes is no text: it expands to megabytes of
one byte."""


@dataclass(frozen=True)
class Page:
    """One document's bytes as stored."""

    offset: int
    """Where its record starts in the file, in bytes of the file as it is (compressed or not)."""
    url: str
    payload: bytes
    charset: str
    """As the server declared it; may be empty or wrong."""
    markup: bool


class _Bomb(OSError):
    """Compressed data that expands without end."""


class _Compressed:
    """A gzip file that raises _Bomb when it is read on after a block that ends in what expands to repetition alone."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.bomb = file, False

    def read(self, size: int) -> bytes:
        if self.bomb:
            raise _Bomb("expands without end")
        data = self.file.read(size)
        tail = data[-PROBE:]
        self.bomb = len(tail) == PROBE and tail.count(tail[:PERIOD]) >= REPEATS
        return data

    def tell(self) -> int:
        return self.file.tell()


def pages(path: Path) -> Iterator[Page | Damage]:
    """Every document of the file; what is damaged, cut off or no document of ours is a Damage in its place.

    Requests, descriptions and the like hold no document and are passed over. After damage, reading goes on at the next
    place that looks like the start of a record; a damaged stretch is reported once.
    """
    with path.open("rb") as file:
        packed = file.read(3) == GZIP_MAGIC
    magic = GZIP_MAGIC if packed else b"WARC/1."
    start, reported = 0, False
    attempts = ATTEMPTS + path.stat().st_size // BLOCK
    while start >= 0 and attempts > 0:
        attempts -= 1
        reached = -1
        try:
            for record, at in _records(path, start, packed):
                found = _page(record, at)
                if found is not None:
                    yield found
                reached, reported = at, isinstance(found, Damage)
            return
        except _Bomb as error:
            yield Damage(max(reached, start), str(error))
            return
        except OSError as error:
            # The record after the last good one is where it broke, or the first one if there was none.
            broken = find(path, magic, reached + 1) if reached >= 0 else start
            if not reported:
                yield Damage(broken if broken >= 0 else reached, _reason(error))
            reported = True
            start = broken if reached >= 0 else find(path, magic, start + 1)


def _records(path: Path, start: int, packed: bool) -> Iterator[tuple[WarcRecord, int]]:
    with path.open("rb") as file:
        file.seek(start)
        stream: Any = _Compressed(file) if packed else file
        for record in ArchiveIterator(stream, parse_http=False):
            yield record, record.stream_pos


def _page(record: WarcRecord, offset: int) -> Page | Damage | None:
    if not record.record_type & RECORDS:
        return None
    if record.content_length > LARGEST:
        return Damage(offset, too_large())
    status, media, charset, coding = 200, (record.headers.get("Content-Type") or "").lower(), "", ""
    try:
        # Taken whole before it is decoded, so that a record cut off at the end of the file is told from a chunked one.
        stored = record.content_length
        record.freeze()
        if record.content_length < stored:
            return Damage(offset, "cut off record")
        if record.is_http:
            # Not decoded by the reader, which would expand a body whole, however large it becomes.
            record.parse_http(auto_decode="none", quirks_mode=True)
            headers = record.http_headers
            status, media = headers.status_code or 0, (record.http_content_type or "").lower()
            charset, coding = record.http_charset or "", (headers.get("Content-Encoding") or "").strip().lower()
            payload = _transferred(record, (headers.get("Transfer-Encoding") or "").strip().lower())
        else:
            payload = record.reader.read()
        payload = expanded(payload, coding)
    except (OSError, ValueError) as error:
        return Damage(offset, _reason(error))
    if len(payload) > LARGEST:
        return Damage(offset, too_large())
    if status != 200:
        return Damage(offset, f"HTTP status {status}")
    if not media:
        media = "text/html" if b"<html" in payload[:2000].lower() else "unknown"
    media = media.partition(";")[0].strip()
    media = media if MEDIA.fullmatch(media) else "unknown"
    if media not in (*MARKUP, "text/plain"):
        return Damage(offset, f"content type {media}")
    return Page(offset, (record.headers.get("WARC-Target-URI") or "").strip("<>"), payload, charset, media in MARKUP)


def _transferred(record: WarcRecord, transfer: str) -> bytes:
    """The body of a response as it was before it was cut into chunks."""
    if transfer in ("", "identity"):
        return record.reader.read()
    if transfer != "chunked":
        raise OSError("unknown encoding")
    data = record.reader.read()
    try:
        return ChunkedReader(BytesIO(data)).read()
    except (OSError, ValueError):
        # Archives exist that keep the header and store the body whole.
        return data


def _reason(error: Exception) -> str:
    """One of few sentences, whatever the damaged bytes say."""
    text = str(error)
    return next((reason for part, reason in REASONS if part in text), "damaged record")
