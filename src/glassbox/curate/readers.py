"""Documents of a source's files, in order, with the byte offset (or row) each one starts at.

What cannot be read is a row too: `skipped` says why. Nothing here raises for bad data; a wrong request, such as a
missing column, raises RequestError.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate import warc
from glassbox.curate.unpack import Damage, blocks
from glassbox.errors import RequestError
from glassbox.recipe.curation import Source
from glassbox.recipe.files import InputFile

LARGEST = warc.LARGEST
BATCH_ROWS, BATCH_BYTES = 512, 16_000_000


class Raw(NamedTuple):
    """One document as stored, or (with `skipped`) a stretch of a file that gave none."""

    origin: str
    offset: int
    """Bytes from the start of the (unpacked) file; of a gzipped WARC, of the file as it is; of tables, the row."""
    url: str
    payload: bytes
    charset: str
    markup: bool
    skipped: str


RAW_SCHEMA = pa.schema(
    [
        ("origin", pa.large_string()),
        ("offset", pa.int64()),
        ("url", pa.large_string()),
        ("payload", pa.large_binary()),
        ("charset", pa.large_string()),
        ("markup", pa.bool_()),
        ("skipped", pa.large_string()),
    ]
)


def read(source: Source, files: Iterable[InputFile]) -> Iterator[Raw]:
    """The source's documents, at most `source.limit`, and what was skipped between them."""
    reader = {"warc": _warc, "jsonl": _jsonl, "parquet": _parquet}.get(source.format, _whole)
    rows = (
        _hugging_face(source)
        if source.format == "hf"
        else (row for file in files for row in _safe(reader, file, source))
    )
    left = source.limit
    for row in rows:
        if left == 0:
            return
        if left is not None and not row.skipped:
            left -= 1
        yield row


def batches(rows: Iterable[Raw]) -> Iterator[pa.RecordBatch]:
    """Rows as Arrow batches of bounded size, in order."""
    batch: list[Raw] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.payload)
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield _arrow(batch)
            batch, size = [], 0
    if batch:
        yield _arrow(batch)


def _arrow(batch: list[Raw]) -> pa.RecordBatch:
    columns = [pa.array(column, field.type) for column, field in zip(zip(*batch, strict=True), RAW_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)


def _skip(file: InputFile, offset: int, reason: str) -> Raw:
    return Raw(file.origin, offset, "", b"", "", False, reason)


def _safe(reader: Any, file: InputFile, source: Source) -> Iterator[Raw]:
    """The reader's rows; a file that the system refuses to read becomes one skipped row."""
    try:
        yield from reader(file, source)
    except OSError as error:
        yield _skip(file, 0, error.strerror or "unreadable file")


def _warc(file: InputFile, source: Source) -> Iterator[Raw]:
    for page in warc.pages(file.path):
        if isinstance(page, Damage):
            yield _skip(file, page.offset, page.reason)
        else:
            yield Raw(file.origin, page.offset, page.url, page.payload, page.charset, page.markup, "")


def _whole(file: InputFile, source: Source) -> Iterator[Raw]:
    """html, text, code: the file is one document."""
    if file.path.stat().st_size > LARGEST:
        yield _skip(file, 0, f"larger than {LARGEST // 1_000_000} MB")
    else:
        yield Raw(file.origin, 0, "", file.path.read_bytes(), "", source.format == "html", "")


def _jsonl(file: InputFile, source: Source) -> Iterator[Raw]:
    for offset, line in _lines(file.path):
        if isinstance(line, Damage):
            yield _skip(file, offset, line.reason)
        elif line.strip():
            yield _json_row(file, offset, line, source)


def _json_row(file: InputFile, offset: int, line: bytes, source: Source) -> Raw:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            line.decode()
        except UnicodeDecodeError:
            return _skip(file, offset, "invalid UTF-8")
        return _skip(file, offset, "broken JSON")
    text = row.get(source.text_key) if isinstance(row, dict) else None
    if not isinstance(text, str):
        return _skip(file, offset, f"no text under '{source.text_key}'")
    url = row.get("url")
    return Raw(file.origin, offset, url if isinstance(url, str) else "", text.encode(), "utf-8", False, "")


def _lines(path: Path) -> Iterator[tuple[int, bytes | Damage]]:
    """(offset in the unpacked file, line); a line cut by damage is dropped with it, one too large is Damage."""
    offset, parts, size = 0, [b""], 0
    for block in blocks(path):
        if isinstance(block, Damage):
            yield offset, block
            # The rest of the line is lost; what follows the damage starts in the middle of another.
            offset, parts, size = offset + size, [b""], 0
            continue
        parts.append(block)
        size += len(block)
        if b"\n" not in block and size <= LARGEST:
            continue
        *lines, rest = b"".join(parts).split(b"\n")
        for line in lines:
            yield offset, line if len(line) <= LARGEST else Damage(offset, "line larger than 64 MB")
            offset += len(line) + 1
        parts, size = [rest], len(rest)
    if size:
        yield offset, b"".join(parts)


def _parquet(file: InputFile, source: Source) -> Iterator[Raw]:
    row = 0
    try:
        with pq.ParquetFile(file.path) as table:
            names = table.schema_arrow.names
            if source.text_key not in names:
                raise RequestError(
                    f"source '{source.name}': {file.origin} has no column '{source.text_key}', only {', '.join(names)}"
                )
            wanted = [source.text_key, *(["url"] if "url" in names else [])]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
                urls = batch.column("url").to_pylist() if "url" in wanted else [""] * len(batch)
                for text, url in zip(batch.column(source.text_key).to_pylist(), urls, strict=True):
                    yield _table_row(file, row, text, url, source)
                    row += 1
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        yield _skip(file, row, f"damaged Parquet: {str(error).splitlines()[0][:200]}")


def _table_row(file: InputFile, row: int, text: Any, url: Any, source: Source) -> Raw:
    if not isinstance(text, str):
        return _skip(file, row, f"no text under '{source.text_key}'")
    return Raw(
        file.origin, row, url if isinstance(url, str) else "", text.encode("utf-8", "replace"), "utf-8", False, ""
    )


def _hugging_face(source: Source) -> Iterator[Raw]:
    """Rows of a data set, streamed: nothing is downloaded whole."""
    if importlib.util.find_spec("datasets") is None:
        raise RequestError(f"source '{source.name}' needs the datasets library: pip install 'glassbox-llm[hub]'")
    import datasets

    name = source.path.removeprefix("hf://")
    file = InputFile(Path(name), source.path)
    try:
        rows = datasets.load_dataset(name, split=source.split, streaming=True)
        for number, row in enumerate(rows):
            yield _table_row(file, number, row.get(source.text_key), row.get("url"), source)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RequestError(f"source '{source.name}': {source.path} cannot be streamed: {error}") from error
