"""Reading what is to be tokenized: curated documents and generated problems, in batches and in a fixed order."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs

PROBLEMS = "problems"
"""The source name of generated problems."""
COLUMNS = ("id", "text", "source", "origin", "offset", "url", "category")
COPIES = "copies"
"""An optional column of whole numbers: how often to use a document, 1 or more."""
_NEEDED = ("id", "text", "source")


@dataclass(frozen=True)
class Document:
    """A text and where it comes from."""

    id: str
    text: str
    source: str
    origin: str
    """The raw file."""
    offset: int
    """Where the document starts in it: bytes (or rows, as its reader counts); -1 when unknown."""
    url: str
    category: str = ""
    """What sort of text its source's classifier took it for; "" when nothing says so."""
    copy: int = 0
    """0, or which of the further copies of the document this is."""


def document_batches(inputs: Inputs, rows: int = 256) -> Iterator[list[Document]]:
    """All documents of all inputs, then those that are to be used twice or more again, and so on: copies are far apart;
    then the training problems (never the held-out ones); at most `rows` at a time.

    Raises RequestError for a Parquet file that is broken or lacks a column, and when there is no document at all.
    """
    most: dict[Path, int] = {}
    found, files, copy = False, _files(inputs), 0
    while files:
        for path in files:
            for batch in _read_parquet(path, (*COLUMNS, COPIES), rows):
                copies = _copies(path, batch)
                most[path] = max(most.get(path, 1), pc.max(copies).as_py() or 1)
                documents = _documents(path, batch.filter(pc.greater(copies, copy)), copy)
                found = found or bool(documents)
                if documents or not copy:
                    yield documents
        copy += 1
        files = [path for path in files if most.get(path, 1) > copy]
    if not found:
        raise RequestError(
            "no document came out of the earlier stages: look at their funnel.json for what removed them"
        )
    problems = inputs.maybe("problems")
    if problems is not None:
        yield from _read_problems(problems / "train.jsonl", rows)


def text_bytes(inputs: Inputs) -> int:
    """UTF-8 bytes of the documents with all their copies (without problems), from the Parquet columns without decoding
    them."""
    total = 0
    for path in _files(inputs):
        for batch in _read_parquet(path, ("text", COPIES), 1024):
            sizes = pc.cast(pc.binary_length(batch.column("text")), pa.int64())
            total += pc.sum(pc.multiply(sizes, pc.cast(_copies(path, batch), pa.int64()))).as_py() or 0
    return total


def share_of(document_id: str, purpose: str) -> float:
    """A number in [0, 1) from the document and the purpose alone: below a share, it belongs to the sample."""
    digest = hashlib.blake2b(document_id.encode(), digest_size=8, key=purpose.encode()).digest()
    return int.from_bytes(digest, "little") / 2**64


def _files(inputs: Inputs) -> list[Path]:
    return [
        path for artefact in inputs.all("documents") for path in sorted((artefact.path / "documents").glob("*.parquet"))
    ]


def _read_parquet(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The named columns (those that are there, if they are not needed), `rows` rows at a time."""
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            missing = [name for name in _NEEDED if name not in there]
            if missing:
                raise RequestError(f"{path}: documents need the column '{missing[0]}'; there are: {', '.join(there)}")
            yield from file.iter_batches(rows, columns=[name for name in columns if name in there])
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path}: cannot be read as Parquet ({error})") from error


def _copies(path: Path, batch: pa.RecordBatch) -> pa.Array:
    """(rows,) how often to use each document; 1 where nothing says so."""
    if COPIES not in batch.schema.names:
        return pa.array(np.ones(len(batch), np.int32))
    column = batch.column(COPIES)
    if not pa.types.is_integer(column.type):
        raise RequestError(f"{path}: the column '{COPIES}' must hold whole numbers, not {column.type}")
    copies = pc.fill_null(column, 1)
    if len(copies) and pc.min(copies).as_py() < 1:
        raise RequestError(f"{path}: the column '{COPIES}' holds {pc.min(copies)}; a document is used once or more")
    return copies


def _documents(path: Path, batch: pa.RecordBatch, copy: int) -> list[Document]:
    try:
        documents = [_document(row, copy) for row in batch.to_pylist()]
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: a text is not valid UTF-8 ({error})") from error
    if any(document.source == PROBLEMS for document in documents):
        raise RequestError(f"{path}: the source name '{PROBLEMS}' is kept for generated problems; use another")
    return documents


def _document(row: dict, copy: int) -> Document:
    offset = row.get("offset")
    return Document(
        id=row["id"],
        text=row["text"] or "",
        source=row["source"],
        origin=row.get("origin") or "",
        offset=-1 if offset is None else offset,
        url=row.get("url") or "",
        category=row.get("category") or "",
        copy=copy,
    )


def _read_problems(path: Path, rows: int) -> Iterator[list[Document]]:
    """Problems as plain prose: the question, then its worked solution."""
    batch, offset = [], 0
    with path.open("rb") as file:
        for line in file:
            row = json.loads(line)
            text = f"{row['question']}\n{row['solution']}"
            batch.append(Document(row["id"], text, PROBLEMS, path.name, offset, ""))
            offset += len(line)
            if len(batch) == rows:
                yield batch
                batch = []
    if batch:
        yield batch
