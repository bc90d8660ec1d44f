"""The stage curate: sources to documents, in five passes over disk with bounded memory.

1. ingest: files -> text (Daft), kept in a temporary Parquet file a source; shared head and foot lines are counted.
2. judge: lines are cut; language, statistics, hashes and signatures are taken of every text (Daft); rules decide.
3. exact duplicates, near duplicates, decontamination decide over all sources at once, from hashes alone.
4. every document is written to `documents/` or `dropped/`.
5. the funnel, skipped inputs, samples and the contamination report are written.

Only hashes, verdicts and names of all documents are in memory at once: some hundred bytes a document.
"""

import itertools
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate import flow
from glassbox.curate.contamination import ProblemGrams, problem_grams
from glassbox.curate.corpus import Corpus
from glassbox.curate.duplicates import exact_copies, near_copies
from glassbox.curate.lines import edge_hashes
from glassbox.curate.outputs import funnel, write_contamination, write_documents, write_samples
from glassbox.curate.rules import KEPT, Verdicts
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import TEMPORARY, write_json, write_lines
from glassbox.recipe.curation import CurateStage, Source
from glassbox.recipe.files import files_of

log = logging.getLogger("glassbox")


def run(config: CurateStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves `documents/` and `dropped/` (Parquet), `funnel.json`, `skipped.jsonl`, `samples.json` and, if a problems
    stage is given, `contamination.json`.

    The result is the same for any number of workers. Broken inputs are rows of `skipped.jsonl`; if no document is left
    at all, RequestError says which step removed the last one.
    """
    flow.use_threads(config.workers)
    folder = inputs.maybe("problems")
    problems = problem_grams(folder, config.decontaminate.ngram) if folder and config.decontaminate else None
    pages = {artefact.name: artefact.path for artefact in inputs.all("pages")}
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=workspace.folder) as staging:
        corpus = Corpus(config, Path(staging))
        skipped: list[dict[str, Any]] = []
        for number, source in enumerate(config.sources):
            common = _ingest(source, pages, corpus, skipped, workspace)
            _judge(number, flow.Judging(source, common, config.near_duplicates, problems), corpus, workspace)
        verdicts = corpus.verdicts()
        _judge_together(config, corpus, verdicts, problems)
        rows = funnel(config, corpus, verdicts, problems is not None)
        write_lines(workspace.path("skipped.jsonl"), skipped)
        write_json(workspace.path("funnel.json"), rows)
        _check_kept(config, rows, skipped)
        write_documents(workspace, config, corpus, verdicts, problems)
        write_samples(workspace, config, corpus)
    if problems:
        write_contamination(workspace, config, corpus, verdicts, problems)


def _ingest(
    source: Source, pages: dict[str, Path], corpus: Corpus, skipped: list[dict[str, Any]], workspace: Workspace
) -> frozenset[int]:
    """Write the source's texts to staging; returns the hashes of its shared edge lines."""
    inputs, left_out = files_of(source, pages)
    for folder in left_out:
        reason = f"folder left out: {folder.files} files, {folder.bytes} bytes"
        skipped.append({"source": source.name, "file": folder.origin, "offset": 0, "reason": reason})
    edges: list[np.ndarray] = []
    with pq.ParquetWriter(corpus.ingested(source), flow.INGESTED, compression="zstd") as writer:
        for batch in flow.ingest(source, inputs):
            workspace.stop_if_asked()
            bad = batch.filter(pa.compute.not_equal(batch["skipped"], ""))
            rows = zip(bad["origin"].to_pylist(), bad["offset"].to_pylist(), bad["skipped"].to_pylist(), strict=True)
            skipped += [{"source": source.name, "file": a, "offset": b, "reason": c} for a, b, c in rows]
            good = batch.filter(pa.compute.equal(batch["skipped"], ""))
            corpus.count_read(source, good)
            writer.write_batch(good)
            workspace.progress(corpus.read_documents(), corpus.read_documents(), f"reading {source.name}")
            if source.edge_lines:
                width = source.edge_lines.lines
                found = [edge_hashes(text, width) for text in good["text"].to_pylist()]
                edges.append(np.array([value for one in found for value in one], np.uint64))
    if not edges or not source.edge_lines:
        return frozenset()
    values, counts = np.unique(np.concatenate(edges), return_counts=True)
    return frozenset(values[counts > source.edge_lines.copies].tolist())


def _judge(number: int, task: flow.Judging, corpus: Corpus, workspace: Workspace) -> None:
    """Pass 2 for one source: everything that can be said of a document by itself."""
    with corpus.judged_writer(task.source) as writer:
        for batch in flow.judge(corpus.ingested(task.source), task):
            workspace.stop_if_asked()
            corpus.add(number, batch, writer)
            workspace.progress(len(corpus), corpus.read_documents(), f"judging {task.source.name}")


def _judge_together(config: CurateStage, corpus: Corpus, verdicts: Verdicts, problems: ProblemGrams | None) -> None:
    """Pass 3: what depends on other documents. Documents stand in priority order, so the first of equals stays."""
    alive = np.flatnonzero(verdicts.step == KEPT)
    if config.exact_duplicates and len(alive):
        first = np.arange(len(corpus))
        first[alive] = alive[exact_copies(corpus.contents()[alive])]
        _drop_copies(verdicts, first, "exact_duplicates", "equal_text", np.ones(len(corpus), np.float32), 1.0)
    alive = np.flatnonzero(verdicts.step == KEPT)
    near = config.near_duplicates
    if near and len(alive):
        kept, similarity = near_copies(corpus.signatures(), alive, near)
        # What an exact copy repeats may itself be a near copy: point to the document that stays.
        exact = verdicts.step == "exact_duplicates"
        verdicts.other[exact] = kept[verdicts.other[exact]]
        _drop_copies(verdicts, kept, "near_duplicates", "minhash_similarity", similarity, near.threshold)
    if problems:
        hit = np.zeros(len(corpus), np.float32)
        for document, found in corpus.hits.items():
            hit[document] = len(found)
            if verdicts.step[document] == KEPT:
                verdicts.other[document] = found[0]
        verdicts.drop(hit > 0, "decontaminate", "problem_ngrams", hit, 0.0)


def _drop_copies(
    verdicts: Verdicts, kept: np.ndarray, step: str, rule: str, value: np.ndarray, threshold: float
) -> None:
    copies = (kept != np.arange(len(kept))) & (verdicts.step == KEPT)
    verdicts.other[copies] = kept[copies]
    verdicts.drop(copies, step, rule, value, threshold)


def _check_kept(config: CurateStage, rows: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = last.get(row["source"])
        if before and before["documents"] and not row["documents"]:
            log.warning("source '%s' has no document left after step %s", row["source"], row["step"])
        last[row["source"]] = row
    if any(row["documents"] for row in last.values()):
        return
    names = ", ".join(f"'{source.name}'" for source in config.sources)
    if not any(row["documents"] for row in rows):
        broken = [row for row in skipped if "left out" not in row["reason"]]
        why = (
            f": {len(broken)} inputs were skipped, the first ({broken[0]['file']}) as {broken[0]['reason']}"
            if broken
            else ""
        )
        raise RequestError(f"curation read no document from {names}{why}; check the paths and formats of the sources")
    # The last document fell in the latest step that some source still entered with documents.
    fatal = [b for a, b in _neighbours(rows) if a["documents"] and not b["documents"]][-1]
    raise RequestError(
        f"curation kept no document: step {fatal['step']} of source '{fatal['source']}' removed the last one; "
        f"loosen its thresholds or give it more data (funnel.json and skipped.jsonl show what went where)"
    )


def _neighbours(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    return ((a, b) for a, b in itertools.pairwise(rows) if a["source"] == b["source"])
