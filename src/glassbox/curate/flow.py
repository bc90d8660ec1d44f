"""The dataflow on Daft: `ingest` turns a source's files into texts, `judge` measures and fingerprints every text.

Daft streams batches from our readers through the functions below on a pool of threads and keeps their order, so that
what comes out does not depend on how many threads there are. The numba kernels release the interpreter's lock.
"""

import hashlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

# Daft reports its use to its makers and draws progress bars unless told otherwise before it is imported.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

import daft
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from daft import DataType, Series
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch

from glassbox.curate import contamination, duplicates, extract, language, lines, readers
from glassbox.curate.statistics import statistics
from glassbox.curate.words import gram_hashes, word_hashes
from glassbox.recipe.curation import NearDuplicates, Source
from glassbox.recipe.files import InputFile

ROWS = 256
"""Documents a function is called with at a time."""
INGESTED = pa.schema(
    [
        ("id", pa.large_string()),
        ("origin", pa.large_string()),
        ("offset", pa.int64()),
        ("url", pa.large_string()),
        ("stored_bytes", pa.int64()),
        ("text", pa.large_string()),
        ("skipped", pa.large_string()),
    ]
)


@dataclass
class _Batches(DataSource):
    """A Daft source over a function that yields Arrow batches; remembers the error that ended it."""

    batches: Any
    arrow_schema: pa.Schema
    error: list[Exception] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "glassbox"

    @property
    def schema(self) -> daft.Schema:
        return daft.Schema.from_pyarrow_schema(self.arrow_schema)

    async def get_tasks(self, pushdowns: Any) -> AsyncIterator[DataSourceTask]:
        yield _Task(self)


@dataclass
class _Task(DataSourceTask):
    source: _Batches

    @property
    def schema(self) -> daft.Schema:
        return self.source.schema

    async def read(self) -> AsyncIterator[RecordBatch]:
        try:
            for batch in self.source.batches():
                yield RecordBatch.from_arrow_record_batches([batch], self.source.arrow_schema)
        except Exception as error:
            # Daft wraps it, or even takes it for the end of the data; `_stream` raises it as it is.
            self.source.error.append(error)
            raise


@cache
def use_threads(workers: int) -> None:
    """Let Daft use so many threads. It can be told once in a process; the results do not depend on it."""
    # An error in a node is raised to us; Daft's own note of it would stand beside our sentence.
    logging.getLogger("daft_local_execution").setLevel(logging.CRITICAL)
    if daft.runners._get_runner() is None:
        daft.set_runner_native(num_threads=workers)


def ingest(source: Source, files: list[InputFile]) -> Iterator[pa.RecordBatch]:
    """A source's documents as INGESTED batches in reading order; `skipped` says why a row has no text."""
    scan = _Batches(lambda: readers.batches(readers.read(source, files)), readers.RAW_SCHEMA)
    python = source.format == "code"

    @daft.func.batch(
        return_dtype=DataType.struct(
            {"id": DataType.string(), "text": DataType.string(), "problem": DataType.string()}
        ),
        unnest=True,
        batch_size=ROWS,
    )
    def to_text(origin: Series, offset: Series, payload: Series, charset: Series, markup: Series, skip: Series) -> Any:
        rows = zip(*(column.to_pylist() for column in (origin, offset, payload, charset, markup, skip)), strict=True)
        out: list[tuple[str, str | None, str]] = []
        for name, start, data, declared, html, reason in rows:
            text = None if reason else _text(data, declared, html, python and name.endswith((".py", ".pyi")))
            problem = reason or ("" if text is not None else "binary, or in no known encoding")
            out.append((document_id(source.name, name, start), text, problem))
        return _struct(out, {"id": pa.large_string(), "text": pa.large_string(), "problem": pa.large_string()})

    frame = scan.read()
    columns = ("origin", "offset", "payload", "charset", "markup", "skipped")
    frame = frame.select(
        to_text(*(frame[name] for name in columns)),
        frame["origin"],
        frame["offset"],
        frame["url"],
        frame["payload"].length().cast(DataType.int64()).alias("stored_bytes"),
    ).select("id", "origin", "offset", "url", "stored_bytes", "text", daft.col("problem").alias("skipped"))
    yield from _stream(frame, scan)


@dataclass(frozen=True)
class Judging:
    """What `judge` does to each text of a source."""

    source: Source
    common_lines: frozenset[int]
    near: NearDuplicates | None
    problems: contamination.ProblemGrams | None


def judge(path: Path, task: Judging) -> Iterator[pa.RecordBatch]:
    """The texts of a Parquet file of INGESTED rows, in order, with what later steps need beside them.

    Columns added: text with lines cut, `cut` (lines cut at the edges and by each line rule), `lang`, `lang_score`,
    `statistics` (float32 list), `content` (16 bytes), `signature` (uint32 list), `hits` (problem numbers).
    """

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(ROWS)

    scan = _Batches(batches, INGESTED)
    text_and_cuts = DataType.struct({"text": DataType.string(), "cut": DataType.list(DataType.int32())})
    languages = DataType.struct({"lang": DataType.string(), "lang_score": DataType.float32()})
    prints = DataType.struct(
        {
            "content": DataType.binary(),
            "signature": DataType.list(DataType.uint32()),
            "hits": DataType.list(DataType.int64()),
        }
    )

    @daft.func.batch(return_dtype=text_and_cuts, unnest=True, batch_size=ROWS)
    def cut(text: Series) -> Any:
        types = {"text": pa.large_string(), "cut": pa.large_list(pa.int32())}
        return _struct([_cut(one, task) for one in text.to_pylist()], types)

    @daft.func.batch(return_dtype=languages, unnest=True, batch_size=ROWS)
    def identify(text: Series) -> Any:
        asked = task.source.format != "code"
        rows = [language.identify(one) if asked else ("", 0.0) for one in text.to_pylist()]
        return _struct(rows, {"lang": pa.large_string(), "lang_score": pa.float32()})

    @daft.func.batch(return_dtype=DataType.list(DataType.float32()), batch_size=ROWS)
    def measure(text: Series) -> Any:
        return _lists(statistics(_strings(text)))

    @daft.func.batch(return_dtype=prints, unnest=True, batch_size=ROWS)
    def fingerprint(text: Series) -> Any:
        return _fingerprints(_strings(text), task)

    frame = scan.read()
    rest = [daft.col(name) for name in INGESTED.names if name not in ("text", "skipped")]
    frame = frame.select(*rest, cut(frame["text"]))
    frame = frame.select("*", identify(frame["text"]), measure(frame["text"]).alias("statistics"))
    frame = frame.select("*", fingerprint(frame["text"]))
    yield from _stream(frame, scan)


def document_id(source: str, origin: str, offset: int) -> str:
    """32 hex digits that name a document for good: a hash of where it was read, never of its text."""
    return hashlib.blake2b(f"{source}\0{origin}\0{offset}".encode(), digest_size=16).hexdigest()


def _stream(frame: daft.DataFrame, scan: _Batches) -> Iterator[pa.RecordBatch]:
    try:
        yield from frame.to_arrow_iter(results_buffer_size=2)
    except Exception:
        if scan.error:
            raise scan.error[0] from None
        raise
    if scan.error:
        raise scan.error[0]


def _text(data: bytes, declared: str, markup: bool, python: bool) -> str | None:
    text = extract.decode_code(data, True) if python else extract.decode(data, declared, markup)
    if text is None:
        return None
    return extract.page_text(text) if markup else extract.plain_text(text)


def _cut(text: str, task: Judging) -> tuple[str, list[int]]:
    edges = task.source.edge_lines
    text, at_edges = lines.cut_edges(text, edges.lines, task.common_lines) if edges else (text, 0)
    text, by_rule = lines.cut_lines(text, task.source.lines) if task.source.lines else (text, [])
    return text, [at_edges, *by_rule]


def _fingerprints(text: pa.Array, task: Judging) -> pa.StructArray:
    words, bounds = word_hashes(text)
    signature = np.empty((len(text), 0), np.uint32)
    if task.near:
        signature = duplicates.signatures(*gram_hashes(words, bounds, task.near.ngram), task.near.permutations)
    hits = contamination.problem_hits(words, bounds, task.problems) if task.problems else [[]] * len(text)
    content = pa.array([duplicates.content_key(one) for one in text.to_pylist()], pa.large_binary())
    fields = [content, _lists(signature), pa.array(hits, pa.large_list(pa.int64()))]
    return pa.StructArray.from_arrays(fields, ["content", "signature", "hits"])


def _strings(text: Series) -> pa.Array:
    array = text.to_arrow()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _lists(rows: np.ndarray) -> pa.Array:
    """(n, k) -> n lists of k."""
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return pa.LargeListArray.from_arrays(offsets, rows.reshape(-1))


def _struct(rows: list[Any], types: dict[str, pa.DataType]) -> pa.StructArray:
    columns = zip(*rows, strict=True) if rows else ([] for _ in types)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types.values(), strict=True)]
    return pa.StructArray.from_arrays(arrays, list(types))
