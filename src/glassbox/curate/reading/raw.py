"""Documents as readers give them: bytes with where they were read, or the reason why there are none."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from glassbox.curate.reading.unpack import LARGEST, too_large
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

BATCH_ROWS, BATCH_BYTES = 512, 16_000_000
META = ("title", "path", "licence", "stars", "repository")
"""What a document's `meta` may say."""
LONGEST_VALUE = 4096
"""Characters of the longest address or meta value that is kept."""


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
    id: str = ""
    """The document's id, if an earlier stage gave it one."""
    meta: str = ""
    """JSON of those of META that are known; empty if none is."""


RAW_SCHEMA = pa.schema(
    [
        ("origin", pa.large_string()),
        ("offset", pa.int64()),
        ("url", pa.large_string()),
        ("payload", pa.large_binary()),
        ("charset", pa.large_string()),
        ("markup", pa.bool_()),
        ("skipped", pa.large_string()),
        ("id", pa.large_string()),
        ("meta", pa.large_string()),
    ]
)


def batches(rows: Iterable[Raw]) -> Iterator[pa.RecordBatch]:
    """Rows as Arrow batches (RAW_SCHEMA) of bounded size, in order."""
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


def skip(file: InputFile, offset: int, reason: str) -> Raw:
    """The row of a stretch that gave no document."""
    return Raw(file.origin, offset, "", b"", "", False, reason)


def document(file: InputFile, offset: int, row: Mapping[str, Any], source: Source) -> Raw:
    """The document of one row of a table; `source.fields` says what the row calls our fields.

    A name may lead into nested fields (`metadata.url`). Text may be bytes, whose encoding is then found out.
    """
    markup = "html" in source.fields
    name = source.fields["html"] if markup else source.fields.get("text", "text")
    text = pick(row, name)
    if not isinstance(text, (str, bytes)):
        return skip(file, offset, f"no text under '{name}'")
    payload, charset = (text, "") if isinstance(text, bytes) else (text.encode("utf-8", "replace"), "utf-8")
    if len(payload) > LARGEST:
        return skip(file, offset, too_large())
    url = pick(row, source.fields.get("url", "url"))
    # JSON may hold halves of surrogate pairs, files may not.
    url = url.encode("utf-8", "replace").decode() if isinstance(url, str) and len(url) <= LONGEST_VALUE else ""
    return Raw(file.origin, offset, url, payload, charset, markup, "", "", meta_of(row, source))


def columns(source: Source) -> list[str]:
    """What the source's tables call the fields that are read, the text (or page) first."""
    text = source.fields.get("html") or source.fields.get("text", "text")
    return [text, *(source.fields.get(name, name) for name in ("url", *META))]  # type: ignore[call-overload]


def pick(row: Mapping[str, Any], name: str) -> Any:
    """The field of that name, or the nested one that its dots lead to; None if there is none."""
    if name in row or "." not in name:
        return row.get(name)
    first, _, rest = name.partition(".")
    inner = row.get(first)
    return pick(inner, rest) if isinstance(inner, Mapping) else None


def meta_of(row: Mapping[str, Any], source: Source) -> str:
    """JSON of what the row says of META; several licences are joined by OR."""
    found = {}
    for name in META:
        value = pick(row, source.fields.get(name, name))  # type: ignore[call-overload]
        if isinstance(value, (list, tuple)):
            value = " OR ".join(item for item in value if isinstance(item, str))
        if isinstance(value, str):
            value = value[:LONGEST_VALUE].encode("utf-8", "replace").decode()
        if value and isinstance(value, (str, int, float)):
            found[name] = value
    return _json(found) if found else ""


def _json(found: dict[str, Any]) -> str:
    try:
        return orjson.dumps(found).decode()
    except TypeError:  # an integer beyond 64 bits
        return _json({name: str(value) for name, value in found.items()})


def _arrow(batch: list[Raw]) -> pa.RecordBatch:
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*batch, strict=True), RAW_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA)
