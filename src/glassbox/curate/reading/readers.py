"""Documents of a part of a source, in order, with the byte offset (or row) each one starts at.

What cannot be read is a row too: `skipped` says why. Nothing here raises for bad data; a wrong request, such as a data
set that is not there, raises RequestError.
"""

import stat
from collections.abc import Callable, Iterator

import orjson

from glassbox.curate.parts import Part
from glassbox.curate.reading import warc
from glassbox.curate.reading.jsonl import read_jsonl
from glassbox.curate.reading.raw import META, RAW_SCHEMA, Raw, batches, skip
from glassbox.curate.reading.tables import read_documents, read_hugging_face, read_parquet
from glassbox.curate.reading.unpack import LARGEST, Damage, blocks, too_large
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

__all__ = ["META", "RAW_SCHEMA", "Raw", "batches", "read"]

Reader = Callable[[InputFile, Source, Part], Iterator[Raw]]


def read(source: Source, part: Part) -> Iterator[Raw]:
    """The part's documents, at most `source.limit`, and what was skipped between them."""
    rows = (
        read_hugging_face(source)
        if source.format == "hf"
        else (row for file in part.files for row in _safe(READERS[source.format], file, source, part))
    )
    left = source.limit
    for row in rows:
        if left == 0:
            return
        if left is not None and not row.skipped:
            left -= 1
        yield row


def _safe(reader: Reader, file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    """The reader's rows; a file that the system refuses to read becomes one skipped row."""
    if not file.origin.isascii():  # names may hold bytes that are no text
        file = InputFile(file.path, file.origin.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    try:
        if stat.S_ISREG(file.path.stat().st_mode):
            yield from reader(file, source, part)
        else:  # a pipe would be waited for, a device read without end
            yield skip(file, 0, "no regular file")
    except OSError as error:
        yield skip(file, 0, error.strerror or "unreadable file")


def _warc(file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    for page in warc.pages(file.path):
        if isinstance(page, Damage):
            yield skip(file, page.offset, page.reason)
        else:
            yield Raw(file.origin, page.offset, page.url, page.payload, page.charset, page.markup, "")


def _whole(file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    """html, text, code: the file is one document; it may be compressed."""
    pieces, size = [], 0
    for block in blocks(file.path):
        if isinstance(block, Damage):
            yield skip(file, block.offset, block.reason)
            return
        pieces.append(block)
        size += len(block)
        if size > LARGEST:
            yield skip(file, 0, too_large())
            return
    meta = orjson.dumps({"path": file.origin}).decode() if source.format == "code" else ""
    yield Raw(file.origin, 0, "", b"".join(pieces), "", source.format == "html", "", "", meta)


READERS: dict[str, Reader] = {
    "warc": _warc,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "documents": read_documents,
    "html": _whole,
    "text": _whole,
    "code": _whole,
}
