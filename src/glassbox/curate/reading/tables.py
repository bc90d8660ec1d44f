"""Parquet files, documents of earlier stages, and data sets of Hugging Face, as documents with their row numbers."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glassbox.curate.parts import Part
from glassbox.curate.reading.raw import BATCH_BYTES, Raw, columns, document, skip
from glassbox.curate.reading.unpack import EXPANSION, LARGEST
from glassbox.errors import RequestError
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

READ_ROWS = 128
"""Rows read at a time; a dictionary of one long text can make them all alike, and large."""
LAST_ROW = 1 << 62
"""A damaged file may say that it has more rows."""
KEPT = ("id", "text", "origin", "offset", "url", "meta", "source")
"""Columns of an earlier stage's documents that are read."""


def read_parquet(file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    """The documents of the part's row groups; `offset` is the row in the file."""
    wanted, left = columns(source), _allowed(file)
    for row, batch in _batches(file, part, wanted, wanted[:1]):
        if isinstance(batch, str):
            yield skip(file, row, batch)
            continue
        for number, values in enumerate(_rows(batch)):
            found = document(file, row + number, values, source)
            left -= len(found.payload)
            if left < 0:
                yield skip(file, row + number, _expands())
                return
            yield found


def read_documents(file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    """Those of an earlier stage's documents whose source has this source's name, as they were read there."""
    for row, batch in _batches(file, part, list(KEPT), ["id", "text", "source"]):
        if isinstance(batch, str):
            yield skip(file, row, batch)
            continue
        for values in _rows(batch.filter(pc.equal(batch["source"], source.subset or source.name))):
            origin, url, identity, meta = (values.get(name) or "" for name in ("origin", "url", "id", "meta"))
            text = values["text"] if isinstance(values["text"], bytes) else (values["text"] or "").encode()
            yield Raw(origin, values.get("offset") or 0, url, text, "utf-8", False, "", identity, meta)


def read_hugging_face(source: Source) -> Iterator[Raw]:
    """Rows of a data set, streamed: nothing is downloaded whole, and no program of the data set is run."""
    if importlib.util.find_spec("datasets") is None:
        raise RequestError(f"source '{source.name}' needs the datasets library: pip install 'glassbox-llm[hub]'")
    import datasets

    name = source.path.removeprefix("hf://")
    file = InputFile(Path(name), source.path)
    folder = "/" in source.subset or Path(name).is_dir()
    subset = {"data_dir" if folder else "name": source.subset} if source.subset else {}
    try:
        rows = datasets.load_dataset(name, split=source.split, streaming=True, **subset)
        for number, row in enumerate(rows):
            yield document(file, number, row, source)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RequestError(f"source '{source.name}': {source.path} cannot be streamed: {error}") from error


def _batches(
    file: InputFile, part: Part, wanted: list[str], needed: list[str]
) -> Iterator[tuple[int, pa.RecordBatch | str]]:
    """(row of the file, batch of the wanted columns, or the reason why a stretch cannot be read)."""
    row = 0
    try:
        with pq.ParquetFile(file.path) as table:
            allowed = _allowed(file)
            meta, names = table.metadata, table.schema_arrow.names
            for name in needed:
                if _column(name, names) is None:
                    yield 0, f"no column '{name}', only {', '.join(names[:20]) or 'none'}"
                    return
            found = [name for name in dict.fromkeys(_column(name, names) for name in wanted) if name is not None]
            for group in range(meta.num_row_groups if part.stop < 0 else min(part.stop, meta.num_row_groups)):
                start, row = row, min(row + max(meta.row_group(group).num_rows, 0), LAST_ROW)
                if group >= part.start:
                    yield from _group(table, group, start, found, allowed)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield row, _damaged(error)


def _group(
    table: pq.ParquetFile, group: int, row: int, found: list[str], allowed: int
) -> Iterator[tuple[int, pa.RecordBatch | str]]:
    """A row group in batches of bounded size; one that cannot be read is passed over, not what follows it."""
    meta = table.metadata.row_group(group)
    # Not from the columns' own metadata: pyarrow ends the process when that is damaged.
    size = meta.total_byte_size
    if size > allowed:
        yield row, _expands()
        return
    rows = max(1, min(READ_ROWS, BATCH_BYTES * meta.num_rows // max(size, 1)))
    try:
        for batch in table.iter_batches(rows, row_groups=[group], columns=found):
            yield row, batch
            row += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield row, _damaged(error)


def _column(name: str, names: list[str]) -> str | None:
    """The column that holds a field: its own, or the one that its dots start from."""
    return name if name in names else name.partition(".")[0] if name.partition(".")[0] in names else None


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries."""
    lists = [_values(column) for column in batch.columns]
    for values in zip(*lists, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """The column's values. If a string is not valid UTF-8 they are bytes; what else has no value in Python is None."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return column.cast(pa.large_binary()).to_pylist()
        return [_value(item) for item in column]


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except (ValueError, OverflowError):
        return None


def _allowed(file: InputFile) -> int:
    """Bytes that the file may become."""
    return LARGEST + EXPANSION * file.path.stat().st_size


def _expands() -> str:
    return f"expands more than {EXPANSION} times"


def _damaged(error: Exception) -> str:
    return f"damaged Parquet: {(str(error).splitlines() or [''])[0][:200]}"
