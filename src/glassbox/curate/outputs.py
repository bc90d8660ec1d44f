"""What the stage curate leaves: documents, dropped documents, and the reports about them."""

import heapq
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate.contamination import ProblemGrams
from glassbox.curate.corpus import DOCUMENT, Corpus
from glassbox.curate.rules import KEPT, Verdicts
from glassbox.ledger.workspace import Workspace
from glassbox.ledger.writing import atomic_path, write_json
from glassbox.recipe.curation import CurateStage, Source

DROPPED = pa.schema(
    [
        *DOCUMENT,
        ("stage", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float32()),
        ("threshold", pa.float32()),
        ("other", pa.string()),
    ]
)
"""Columns of `dropped/*.parquet`: of a duplicate, `other` is the id of the document that stayed; of a contaminated
document, the id of a problem it holds."""
FILE_BYTES = 256_000_000
"""Bytes of text after which the next Parquet file is started."""
SAMPLE_CHARACTERS = 1200
BYTES_PER_TOKEN = 4
"""For the funnel's rough token counts; true counts come with a tokenizer."""


def funnel(config: CurateStage, corpus: Corpus, verdicts: Verdicts, decontaminated: bool) -> list[dict[str, Any]]:
    """What is left after each step, source by source, in the order of the steps. Bytes of step read are as stored."""
    rows = []
    numbers, sizes = corpus.source_numbers(), corpus.sizes()
    for number, source in enumerate(config.sources):
        for step in ("read", "extract"):
            counts = corpus.read.get((step, source.name), Counter())
            rows.append(_row(step, source, counts["documents"], counts["bytes"]))
        mine = numbers == number
        left = mine & (verdicts.step != "extract")
        for step in _steps(config, source, decontaminated):
            left &= verdicts.step != step
            rows.append(_row(step, source, int(left.sum()), int(sizes[left].sum())))
    return rows


def _steps(config: CurateStage, source: Source, decontaminated: bool) -> list[str]:
    """The steps a source goes through after extraction."""
    steps = {
        "lines": bool(source.lines or source.edge_lines),
        "language": source.language is not None and source.format != "code",
        **dict.fromkeys(source.rules, True),
        "exact_duplicates": config.exact_duplicates,
        "near_duplicates": config.near_duplicates is not None,
        "decontaminate": decontaminated,
    }
    return [step for step, asked in steps.items() if asked]


def _row(step: str, source: Source, documents: int, size: int) -> dict[str, Any]:
    return {
        "step": step,
        "source": source.name,
        "documents": documents,
        "bytes": size,
        "tokens": round(size / BYTES_PER_TOKEN),
    }


def write_documents(
    workspace: Workspace, config: CurateStage, corpus: Corpus, verdicts: Verdicts, problems: ProblemGrams | None
) -> None:
    """Split the judged texts into `documents/` and `dropped/`, in order."""
    kept = _Writer(workspace.path("documents"), "documents", DOCUMENT)
    dropped = _Writer(workspace.path("dropped"), "dropped", DROPPED)
    names, start = _other_names(corpus, verdicts, problems), 0
    for source in config.sources:
        with pq.ParquetFile(corpus.judged(source)) as table:
            for batch in table.iter_batches(1024):
                workspace.stop_if_asked()
                rows = slice(start, start + len(batch))
                stays = pa.array(verdicts.step[rows] == KEPT)
                kept.write(batch.filter(stays))
                columns = [*batch.columns, *_verdict_columns(verdicts, rows, names)]
                both = pa.RecordBatch.from_arrays(
                    [a.cast(f.type) for a, f in zip(columns, DROPPED, strict=True)], schema=DROPPED
                )
                dropped.write(both.filter(pa.compute.invert(stays)))
                start += len(batch)
                workspace.progress(start, len(corpus), "writing")
    kept.close()
    dropped.close()


def _other_names(corpus: Corpus, verdicts: Verdicts, problems: ProblemGrams | None) -> dict[int, str]:
    """Document -> the id of what it repeats or holds, for documents dropped for that."""
    ids = corpus.ids()
    names = {}
    for document in np.flatnonzero(verdicts.other >= 0).tolist():
        other = int(verdicts.other[document])
        of_problem = verdicts.step[document] == "decontaminate" and problems is not None
        names[document] = problems.ids[other] if of_problem and problems else ids[other].decode()
    return names


def _verdict_columns(verdicts: Verdicts, rows: slice, names: dict[int, str]) -> list[pa.Array]:
    others = [names.get(document) for document in range(rows.start, rows.stop)]
    return [
        pa.array(verdicts.step[rows].tolist(), pa.string()),
        pa.array(verdicts.rule[rows].tolist(), pa.string()),
        pa.array(verdicts.value[rows], pa.float32()),
        pa.array(verdicts.threshold[rows], pa.float32()),
        pa.array(others, pa.string()),
    ]


class _Writer:
    """Numbered Parquet files of bounded size, each whole or absent; at least one, so that the schema is there."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema) -> None:
        self.folder, self.stem, self.schema = folder, stem, schema
        self.number = self.bytes = 0
        self.batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        if len(batch):
            self.batches.append(batch)
            self.bytes += batch.nbytes
        if self.bytes >= FILE_BYTES:
            self._flush()

    def close(self) -> None:
        if self.batches or not self.number:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self.batches, schema=self.schema)
        with atomic_path(self.folder / f"{self.stem}-{self.number:05d}.parquet") as path:
            pq.write_table(table, path, compression="zstd", row_group_size=4096)
        self.number, self.bytes, self.batches = self.number + 1, 0, []


def write_samples(workspace: Workspace, config: CurateStage, corpus: Corpus) -> None:
    """`samples.json`: a few kept documents of each source, a few dropped ones of each rule, lines cut by rule.

    Those with the smallest ids are taken: as good as drawn at random, and the same in every run.
    """
    kept: dict[str, list[dict[str, Any]]] = {}
    dropped: dict[str, list[dict[str, Any]]] = {}
    for groups, folder, key in ((kept, "documents", "source"), (dropped, "dropped", "rule")):
        for path in sorted(workspace.path(folder).glob("*.parquet")):
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(1024):
                    _sample(groups, batch, key, config.samples)
    cut = {name: dict(counts) for name, counts in corpus.cuts.items() if sum(counts.values())}
    write_json(workspace.path("samples.json"), {"kept": kept, "dropped": dropped, "lines_cut": cut})


def _sample(groups: dict[str, list[dict[str, Any]]], batch: pa.RecordBatch, key: str, count: int) -> None:
    shown = ["id", "source", "origin", "offset", "url", "text"]
    shown += [name for name in ("stage", "rule", "value", "threshold", "other") if name in batch.schema.names]
    names = np.array(batch[key].to_pylist(), object)
    ids = np.array(batch["id"].to_pylist(), object)
    for name in dict.fromkeys(names.tolist()):
        places = np.flatnonzero(names == name)
        best = places[np.argsort(ids[places], kind="stable")[:count]]
        rows = batch.select(shown).take(pa.array(best)).to_pylist()
        for row in rows:
            row["text"] = row["text"][:SAMPLE_CHARACTERS]
        groups[name] = heapq.nsmallest(count, groups.get(name, []) + rows, key=lambda row: row["id"])


def write_contamination(
    workspace: Workspace, config: CurateStage, corpus: Corpus, verdicts: Verdicts, problems: ProblemGrams
) -> None:
    """`contamination.json`: how many problems were looked for, and which were found in documents dropped for them."""
    assert config.decontaminate
    dropped = verdicts.step == "decontaminate"
    found = {number for document, numbers in corpus.hits.items() if dropped[document] for number in numbers}
    report = {
        "ngram": config.decontaminate.ngram,
        "problems": len(problems.ids),
        "too_short": problems.too_short,
        "documents_dropped": int(dropped.sum()),
        "problems_found": [problems.ids[number] for number in sorted(found)],
    }
    write_json(workspace.path("contamination.json"), report)
