"""What is known of all documents between the passes: hashes and verdicts in memory, texts and signatures on disk."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.curate.rules import Verdicts, judge_language, judge_statistics
from glassbox.curate.statistics import STATISTICS
from glassbox.recipe.curation import CurateStage, Source

MEASURED = [name for name in STATISTICS if name not in ("characters", "words")]
DOCUMENT = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("offset", pa.int64()),
        ("url", pa.string()),
        ("lang", pa.string()),
        ("lang_score", pa.float32()),
        ("n_chars", pa.int64()),
        ("n_words", pa.int64()),
        ("lines_cut", pa.int32()),
        *((name, pa.float32()) for name in MEASURED),
    ]
)
"""Columns of `documents/*.parquet`."""


class Corpus:
    """All documents of the stage in priority order: sources as the recipe lists them, files sorted, then offset."""

    def __init__(self, config: CurateStage, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.read: dict[tuple[str, str], Counter[str]] = {}
        """(step, source) -> documents and bytes, for the steps read and extract."""
        self.cuts: dict[str, Counter[str]] = {source.name: Counter() for source in config.sources}
        """Source -> line rule -> lines it cut."""
        self.hits: dict[int, list[int]] = {}
        """Document -> problems whose n-grams it holds."""
        self._parts: list[tuple[Verdicts, NDArray, NDArray, NDArray, NDArray]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def ingested(self, source: Source) -> Path:
        return self.folder / f"{source.name}.ingested.parquet"

    def judged(self, source: Source) -> Path:
        return self.folder / f"{source.name}.judged.parquet"

    def read_documents(self) -> int:
        return sum(counts["documents"] for (step, _), counts in self.read.items() if step == "read")

    def count_read(self, source: Source, batch: pa.RecordBatch) -> None:
        """Count documents as stored and as extracted."""
        sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy(zero_copy_only=False)
        stored = pc.sum(batch["stored_bytes"]).as_py() or 0
        read = self.read.setdefault(("read", source.name), Counter(documents=0, bytes=0))
        read.update(documents=len(batch), bytes=stored)
        extract = self.read.setdefault(("extract", source.name), Counter(documents=0, bytes=0))
        extract.update(documents=int((sizes > 0).sum()), bytes=int(sizes.sum()))

    @contextmanager
    def judged_writer(self, source: Source) -> Iterator[pq.ParquetWriter]:
        with pq.ParquetWriter(self.judged(source), DOCUMENT, compression="zstd") as writer:
            yield writer

    def add(self, number: int, batch: pa.RecordBatch, writer: pq.ParquetWriter) -> None:
        """Take in a judged batch of source `number`: its text goes to disk, its hashes and verdicts stay here."""
        source = self.config.sources[number]
        n = len(batch)
        values = _matrix(batch["statistics"], len(STATISTICS))
        sizes = pc.binary_length(batch["text"]).to_numpy(zero_copy_only=False)
        cut = _matrix(batch["cut"], 1 + len(source.lines))
        self.cuts[source.name].update(dict(zip(("edge_lines", *source.lines), cut.sum(0).tolist(), strict=True)))
        score = batch["lang_score"].to_numpy(zero_copy_only=False)

        verdicts = Verdicts.kept(n)
        ones = np.ones(n, np.float32)
        empty = values[:, STATISTICS.index("words")] == 0
        verdicts.drop(empty & (cut.sum(1) == 0), "extract", "no_text", ones * 0, 1)
        verdicts.drop(empty, "lines", "no_text", ones * 0, 1)
        judge_language(verdicts, np.array(batch["lang"].to_pylist(), object), score, source)
        judge_statistics(verdicts, values, source)

        content = np.frombuffer(b"".join(batch["content"].to_pylist()), np.uint64).reshape(n, 2)
        ids = np.array(batch["id"].to_pylist(), "S32")
        self._parts.append((verdicts, np.full(n, number, np.int32), sizes.astype(np.int64), content, ids))
        if self.config.near_duplicates:
            with (self.folder / "signatures.bin").open("ab") as file:
                file.write(_matrix(batch["signature"], self.config.near_duplicates.permutations).tobytes())
        for row, found in enumerate(batch["hits"].to_pylist()):
            if found:
                self.hits[self._count + row] = found
        self._count += n
        writer.write_batch(_document_batch(batch, source, values, cut))

    def verdicts(self) -> Verdicts:
        parts = [part[0] for part in self._parts] or [Verdicts.kept(0)]
        columns = ("step", "rule", "value", "threshold", "other")
        return Verdicts(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    def source_numbers(self) -> NDArray[np.int32]:
        return self._column(1, np.zeros(0, np.int32))

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each text."""
        return self._column(2, np.zeros(0, np.int64))

    def contents(self) -> NDArray[np.uint64]:
        """(documents, 2) hashes of texts."""
        return self._column(3, np.zeros((0, 2), np.uint64))

    def ids(self) -> NDArray[np.bytes_]:
        return self._column(4, np.zeros(0, "S32"))

    def signatures(self) -> NDArray[np.uint32]:
        assert self.config.near_duplicates
        shape = (len(self), self.config.near_duplicates.permutations)
        return np.memmap(self.folder / "signatures.bin", np.uint32, "r", shape=shape)

    def _column(self, place: int, empty: NDArray) -> NDArray:
        return np.concatenate([part[place] for part in self._parts]) if self._parts else empty


def _matrix(lists: pa.Array, width: int) -> NDArray:
    """An Arrow array of n lists of `width` numbers -> (n, width)."""
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), width)


def _document_batch(batch: pa.RecordBatch, source: Source, values: NDArray, cut: NDArray) -> pa.RecordBatch:
    n = len(batch)
    columns = {
        "source": pa.array([source.name] * n, pa.string()),
        "n_chars": pa.array(values[:, 0].astype(np.int64)),
        "n_words": pa.array(values[:, 1].astype(np.int64)),
        "lines_cut": pa.array(cut.sum(1).astype(np.int32)),
        **{name: pa.array(values[:, STATISTICS.index(name)]) for name in MEASURED},
    }
    arrays = [
        columns[field.name] if field.name in columns else batch[field.name].cast(field.type) for field in DOCUMENT
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DOCUMENT)
