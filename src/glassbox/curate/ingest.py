"""Pass 1: the stored documents of a part become texts; lines at their edges are counted."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate import staging
from glassbox.curate.documents import document_id
from glassbox.curate.reading import extract, readers
from glassbox.curate.reading.addresses import AddressRules
from glassbox.curate.reading.repair import repair
from glassbox.curate.rules.lines import edge_hashes
from glassbox.ledger.writing import atomic_path
from glassbox.recipe.sources import Source, UrlRules

ROWS, BATCH_BYTES = 256, 16_000_000
"""Documents, and bytes of them as stored, that are in memory at a time."""
INGESTED = pa.schema(
    [
        ("id", pa.string()),
        ("origin", pa.string()),
        ("offset", pa.int64()),
        ("url", pa.string()),
        ("meta", pa.string()),
        ("url_rule", pa.string()),
        ("url_entry", pa.string()),
        ("text", pa.large_string()),
    ]
)
_Row = tuple[str, str, int, str, str, str, str, str]


def ingest(folder: Path, number: int) -> None:
    """Leaves `ingested-N.parquet` (INGESTED), `ingested-N.json` and, for `edge_lines`, `edges-N.npy`."""
    stage = staging.load(folder)
    source = stage.source(number)
    facts: dict[str, Any] = {"read": Counter(), "extract": Counter(), "skipped": []}
    edges: list[np.ndarray] = []
    with (
        atomic_path(stage.path("ingested", number, "parquet")) as path,
        pq.ParquetWriter(path, INGESTED, compression="lz4") as writer,
    ):
        for rows in _batches(readers.read(source, stage.parts[number][1])):
            batch = _texts(rows, source, facts)
            if source.clean.repair:
                batch = batch.set_column(INGESTED.names.index("text"), "text", repair(batch["text"]))
            if source.clean.edge_lines:
                edges.append(edge_hashes(batch["text"], source.clean.edge_lines.lines)[0])
            writer.write_batch(batch)
    if source.clean.edge_lines:
        found, counts = np.unique(np.concatenate(edges or [np.zeros(0, np.uint64)]), return_counts=True)
        staging.write_array(stage.path("edges", number, "npy"), np.stack([found, counts.astype(np.uint64)]))
    staging.write_facts(stage.path("ingested", number, "json"), facts)


def _batches(rows: Iterator[readers.Raw]) -> Iterator[list[readers.Raw]]:
    batch: list[readers.Raw] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.payload)
        if len(batch) >= ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _texts(rows: list[readers.Raw], source: Source, facts: dict[str, Any]) -> pa.RecordBatch:
    """The rows that are documents, with their texts; what was skipped goes into `facts`."""
    rules = _address_rules(source.urls) if source.urls else None
    out: list[_Row] = []
    for raw in rows:
        text = None if raw.skipped else _text(raw, source)
        if text is None:
            reason = raw.skipped or "binary, or in no known encoding"
            facts["skipped"].append({"source": source.name, "file": raw.origin, "offset": raw.offset, "reason": reason})
            continue
        facts["read"].update(documents=1, bytes=len(raw.payload))
        if text:
            facts["extract"].update(documents=1, bytes=len(text.encode()))
        hit = rules.verdict(raw.url) if rules and raw.url else None
        name = raw.id or document_id(source.name, raw.origin, raw.offset)
        out.append((name, raw.origin, raw.offset, raw.url, raw.meta, *(hit or ("", "")), text))
    columns = zip(*out, strict=True) if out else ([] for _ in INGESTED)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INGESTED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=INGESTED)


def _text(raw: readers.Raw, source: Source) -> str | None:
    if source.format == "documents":
        return raw.payload.decode()
    if source.format == "code" and raw.origin.endswith((".py", ".pyi")):
        text = extract.decode_code(raw.payload, True)
    else:
        text = extract.decode(raw.payload, raw.charset, raw.markup)
    if text is None:
        return None
    return extract.page_text(text) if raw.markup else extract.plain_text(text)


@staging.read_once
def _address_rules(settings: UrlRules) -> AddressRules:
    """Block lists are read once in a worker."""
    return AddressRules(settings)
