"""The stage curate: sources to documents, in four passes over parts of the corpus.

1. ingest: files -> texts; lines at the edges of documents are counted (`ingest.py`).
2. assess: lines are cut; language, statistics, rules, classifiers and hashes of every text (`assess.py`).
3. decide: copies, repeated passages, evaluation problems and sampling, over all sources at once (`together.py`).
4. write: `documents/`, `dropped/` and the reports about them (`outputs.py`).

Passes 1, 2 and 4 are done part by part by workers (`flow.py`); what they leave waits in a staging folder, so that an
interrupted stage goes on where it was. Between the passes some hundred bytes a document are on disk, mapped.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from glassbox.curate import flow, staging
from glassbox.curate.assess import assess, evaluations
from glassbox.curate.ingest import ingest
from glassbox.curate.models.scoring import check_names
from glassbox.curate.outputs import funnel, hand_out, write_part, write_samples
from glassbox.curate.parts import parts_of
from glassbox.curate.staging import Staging
from glassbox.curate.together import Decisions, decide, hits_of
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.files import files_of

log = logging.getLogger("glassbox")


def run(config: CurateStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves `documents/` and `dropped/` (Parquet), `funnel.json`, `skipped.jsonl`, `samples.json`, `sheet.csv` and,
    where they apply, `contamination.json` and `sampling.json`.

    The result is the same for any number of workers and any machine. Broken inputs are rows of `skipped.jsonl`; if no
    document is left at all, RequestError says which step removed the last one.
    """
    staging.forget()
    stage, skipped = _staged(config, inputs, workspace)
    if config.models:
        check_names(stage)
    _each(ingest, stage, "ingested", "reading", workspace)
    skipped += [row for _, facts in stage.facts("ingested") for row in facts["skipped"]]
    write_lines(workspace.path("skipped.jsonl"), skipped)
    _share_edge_lines(stage)
    _each(assess, stage, "judged", "judging", workspace)
    hits = hits_of(stage)
    decisions = decide(stage, hits)
    workspace.stop_if_asked()
    rows = funnel(stage, decisions)
    write_json(workspace.path("funnel.json"), rows)
    _check_kept(config, rows, skipped)
    hand_out(stage, decisions)
    _each(write_part, stage, "written", "writing", workspace)
    write_samples(stage, workspace.folder)
    _write_reports(stage, decisions, hits, workspace)
    shutil.rmtree(stage.folder.parent)


def _staged(config: CurateStage, inputs: Inputs, workspace: Workspace) -> tuple[Staging, list[dict[str, Any]]]:
    """The staging folder, where the runner looks for work to go on with, and folders of the sources left out."""
    folder = workspace.path("checkpoints", "parts").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    artefacts = {artefact.name: artefact.path.resolve() for artefact in inputs.artefacts}
    parts, skipped = [], []
    for number, source in enumerate(config.sources):
        files, left_out = files_of(source, artefacts)
        parts += [(number, part) for part in parts_of(source, files)]
        for gone in left_out:
            reason = f"folder left out: {gone.files} files, {gone.bytes} bytes"
            skipped.append({"source": source.name, "file": gone.origin, "offset": 0, "reason": reason})
    problems = inputs.maybe("problems")
    stage = Staging(folder, config, workspace.seed, artefacts, problems.resolve() if problems else None, tuple(parts))
    stage.save()
    return stage, skipped


def _each(work: flow.Work, stage: Staging, step: str, doing: str, workspace: Workspace) -> None:
    """Do `work` to the parts that have no result of it yet."""
    numbers = stage.todo(step, "json")
    done = len(stage.parts) - len(numbers)
    workspace.progress(done, len(stage.parts), doing)
    size = sum(stage.parts[number][1].size() for number in numbers)
    for _ in flow.each(work, stage.folder, numbers, stage.config.engine, size) if numbers else ():
        workspace.stop_if_asked()
        done += 1
        workspace.progress(done, len(stage.parts), doing)


def _share_edge_lines(stage: Staging) -> None:
    """Tell each part how often it may keep lines that more documents share than `copies`: the first parts keep them."""
    for number, source in enumerate(stage.config.sources):
        if not source.clean.edge_lines:
            continue
        parts, limit = stage.first(number), source.clean.edge_lines.copies
        files = [np.load(stage.path("edges", part, "npy"), mmap_mode="r") for part in parts]
        common, left = _common(files, limit, stage.config.engine.memory)
        for part, (hashes, counts) in zip(parts, files, strict=True):
            _, mine, theirs = np.intersect1d(common, hashes, assume_unique=True, return_indices=True)
            staging.write_array(stage.path("allowed", part, "npy"), np.stack([common[mine], left[mine]]))
            left[mine] -= np.minimum(left[mine], counts[theirs])


def _common(files: list[np.ndarray], limit: int, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes that occur more than `limit` times in all, sorted, and `limit` for each.

    One stretch of the hash values is put together at a time, so that it fits into a quarter of the memory.
    """
    stretches = 1 + sum(file.nbytes for file in files) * 4 // memory
    bounds = [round(2**64 / stretches * k) for k in range(stretches)]
    found = [np.zeros(0, np.uint64)]
    for k, low in enumerate(bounds):
        rows = [_between(file, low, bounds[k + 1] if k + 1 < stretches else None) for file in files]
        hashes, counts = np.concatenate(rows, axis=1) if rows else np.zeros((2, 0), np.uint64)
        unique, inverse = np.unique(hashes, return_inverse=True)
        totals = np.zeros(len(unique), np.uint64)
        np.add.at(totals, inverse, counts)
        found.append(unique[totals > limit])
    common = np.concatenate(found)
    return common, np.full(len(common), limit, np.uint64)


def _between(file: np.ndarray, low: int, high: int | None) -> np.ndarray:
    start = np.searchsorted(file[0], np.uint64(low))
    return file[:, start : None if high is None else np.searchsorted(file[0], np.uint64(high))]


def _write_reports(stage: Staging, decisions: Decisions, hits: dict[int, Any], workspace: Workspace) -> None:
    if stage.config.decontaminate and (stage.problems or stage.config.decontaminate.sets):
        write_json(workspace.path("contamination.json"), _contamination(stage, decisions, hits))
    if decisions.sampled:
        write_json(workspace.path("sampling.json"), decisions.sampled)


def _contamination(stage: Staging, decisions: Decisions, hits: dict[int, Any]) -> dict[str, Any]:
    """Per evaluation: problems looked for, found, and in which documents."""
    assert stage.config.decontaminate
    ids = decisions.table["id"]
    found: dict[str, dict[str, set[str]]] = {}
    for document in decisions.held:
        for name, item, *_ in hits[document]:
            found.setdefault(name, {}).setdefault(item, set()).add(ids[document].decode())
    steps = (decisions.table.names[decisions.table["code"][document]][0] for document in decisions.held)
    dropped = sum(step == "decontaminate" for step in steps)
    return {
        "ngram": stage.config.decontaminate.ngram,
        "share": stage.config.decontaminate.share,
        "documents_dropped": dropped,
        "documents_cut": len(decisions.held) - dropped,
        "sets": [
            {**asdict(one), "found": {item: sorted(ids) for item, ids in sorted(found.get(one.name, {}).items())}}
            for one in evaluations(stage.folder).sets
        ],
    }


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
