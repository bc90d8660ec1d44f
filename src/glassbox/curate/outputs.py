"""Pass 4: what the stage leaves. Documents, dropped documents, samples, the sheet for human checks, the funnel."""

import csv
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.curate import staging
from glassbox.curate.documents import DOCUMENT, DROPPED, funnel_row
from glassbox.curate.rules.statistics import STATISTICS, statistics
from glassbox.curate.staging import Staging
from glassbox.curate.together import Decisions, without
from glassbox.ledger.writing import atomic_open, atomic_path, write_json
from glassbox.recipe.sources import Source

SAMPLE_CHARACTERS = 1200
SHEET_CHARACTERS = 2000
AFTER_PASSAGES = ("substrings", "semantic_duplicates", "decontaminate", "sampling")
"""Steps after which passages are cut from the texts."""
SHEET = ("id", "source", "text", "verdict", "note")
"""Columns of the sheet for human checks; `verdict` (keep or drop) is filled in without knowing the machine's."""


def hand_out(stage: Staging, decisions: Decisions) -> None:
    """Leave each part's final verdicts where its writer finds them: `final-N.json`."""
    table = decisions.table
    repeats = (table.other >= 0) & ~table.kept()
    duplicates = np.bincount(table.other[repeats], minlength=len(table))
    held, cut = (np.array(sorted(rows), np.int64) for rows in (decisions.held, decisions.passages))
    for number in range(len(stage.parts)):
        rows = table.rows(number)
        here = np.flatnonzero(repeats[rows])
        others = {str(row): table["id"][table.other[row + rows.start]].decode() for row in here.tolist()}
        # One whose match was cut may have gone for another reason.
        others |= {
            str(row - rows.start): decisions.held[row]
            for row in _within(held, rows)
            if table.names[table["code"][row]][0] == "decontaminate"
        }
        passages = {str(row - rows.start): decisions.passages[row] for row in _within(cut, rows)}
        facts = {
            "verdicts": [table.names[code] for code in table["code"][rows].tolist()],
            "value": table["value"][rows].tolist(),
            "threshold": table["threshold"][rows].tolist(),
            "copies": decisions.copies[rows].tolist() if decisions.copies is not None else None,
            "duplicates": duplicates[rows].tolist(),
            "others": others,
            "passages": passages,
        }
        staging.write_facts(stage.path("final", number, "json"), facts)


def _within(documents: NDArray[np.int64], rows: slice) -> list[int]:
    """Those of the documents, which are ascending, that belong to a part."""
    found: list[int] = documents[slice(*np.searchsorted(documents, [rows.start, rows.stop]))].tolist()
    return found


def write_part(folder: Path, number: int) -> None:
    """Split a part's texts into `documents/` and `dropped/` of the stage's folder, and leave `written-N.json`."""
    stage = staging.load(folder)
    final = json.loads(stage.path("final", number, "json").read_bytes())
    samples = _Samples(stage.config.samples, stage.config.sheet)
    place = 0
    with (
        pq.ParquetFile(stage.path("judged", number, "parquet")) as table,
        writer(output(stage, "documents", number), DOCUMENT) as kept,
        writer(output(stage, "dropped", number), DROPPED) as dropped,
    ):
        for batch in table.iter_batches(1024):
            rows = range(place, place + len(batch))
            verdicts = final["verdicts"][rows.start : rows.stop]
            batch = _finished(batch, rows, final)
            samples.count_passages(rows, final)
            stays = pa.array([step == "kept" for step, _ in verdicts])
            columns = [
                *batch.columns,
                pa.array([step for step, _ in verdicts], pa.string()),
                pa.array([rule for _, rule in verdicts], pa.string()),
                pa.array(final["value"][rows.start : rows.stop], pa.float32()),
                pa.array(final["threshold"][rows.start : rows.stop], pa.float32()),
                pa.array([final["others"].get(str(row)) for row in rows], pa.string()),
            ]
            both = pa.RecordBatch.from_arrays(columns, schema=DROPPED)
            gone = both.filter(pc.invert(stays))
            kept.write_batch(batch.filter(stays))
            dropped.write_batch(gone)
            samples.take(batch.filter(stays), gone)
            place += len(batch)
    staging.write_facts(stage.path("written", number, "json"), samples.found())


def output(stage: Staging, name: str, number: int) -> Path:
    """`documents/` or `dropped/` of the stage's own folder; the staging folder lies two levels below it."""
    return stage.folder.parent.parent / name / f"{name}-{number:06d}.parquet"


@contextmanager
def writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file that appears whole, or not at all."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as opened:
        yield opened


def _finished(batch: pa.RecordBatch, rows: range, final: dict[str, Any]) -> pa.RecordBatch:
    """The documents with copies, duplicates, and passages that stand elsewhere cut out."""
    columns = {name: batch[name] for name in DOCUMENT.names}
    columns["duplicates"] = pa.array(final["duplicates"][rows.start : rows.stop], pa.int32())
    if final["copies"] is not None:
        columns["copies"] = pa.array(final["copies"][rows.start : rows.stop], pa.int32())
    touched = [row - rows.start for row in rows if str(row) in final["passages"]]
    if touched:
        texts, cuts = columns["text"].to_pylist(), columns["cuts"].to_pylist()
        for row in touched:
            passages = final["passages"][str(row + rows.start)]
            cuts[row] = [*(cuts[row] or []), *(_passage(texts[row], *one) for one in sorted(passages))]
            texts[row] = without(texts[row], passages)
        columns["text"] = pa.array(texts, pa.large_string())
        columns["cuts"] = pa.array(cuts, DOCUMENT.field("cuts").type)
        # The other statistics stay those that the rules saw.
        counts = statistics(columns["text"], sets=())
        columns["n_chars"] = pa.array(counts[:, STATISTICS.index("characters")].astype(np.int64))
        columns["n_words"] = pa.array(counts[:, STATISTICS.index("words")].astype(np.int64))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=DOCUMENT)


def _passage(text: str, start: int, end: int, step: str) -> dict[str, Any]:
    """A stretch of the text as a cut; it may span lines."""
    head = text.rfind("\n", 0, start) + 1
    line = sum(1 for one in text[:head].split("\n") if one.strip())
    return {"step": step, "line": line, "column": start - head, "rule": "passage", "text": text[start:end]}


class _Samples:
    """Of kept documents by source and of dropped ones by rule those with the smallest ids: as good as drawn at random,
    the same in every run, and easy to put together from parts."""

    def __init__(self, count: int, sheet: int) -> None:
        self.count, self.sheet = count, sheet
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.dropped: dict[str, list[dict[str, Any]]] = {}
        self.drawn: dict[str, list[dict[str, Any]]] = {}
        self.passages: Counter[str] = Counter()

    def count_passages(self, rows: range, final: dict[str, Any]) -> None:
        """Passages cut from the kept documents of a batch, by the step that cut them."""
        for row in rows:
            if final["verdicts"][row][0] == "kept":
                self.passages.update(step for _, _, step in final["passages"].get(str(row), ()))

    def take(self, kept: pa.RecordBatch, dropped: pa.RecordBatch) -> None:
        _sample(self.kept, kept, "source", self.count)
        _sample(self.dropped, dropped, "rule", self.count)
        _sample(self.drawn, kept, None, (self.sheet + 1) // 2, "kept")
        _sample(self.drawn, dropped, None, self.sheet // 2, "dropped")

    def found(self) -> dict[str, Any]:
        groups = {"kept": self.kept, "dropped": self.dropped, "drawn": self.drawn}
        return {"groups": groups, "passages": self.passages}


def _sample(
    groups: dict[str, list[dict[str, Any]]], batch: pa.RecordBatch, key: str | None, count: int, group: str = ""
) -> None:
    shown = ["id", "source", "origin", "offset", "url", "text"]
    shown += [name for name in ("stage", "rule", "value", "threshold", "other") if name in batch.schema.names]
    names = np.array(batch[key].to_pylist() if key else [group] * len(batch), object)
    ids = np.array(batch["id"].to_pylist(), object)
    for name in dict.fromkeys(names.tolist()):
        places = np.flatnonzero(names == name)
        best = places[np.argsort(ids[places], kind="stable")[:count]]
        rows = batch.select(shown).take(pa.array(best)).to_pylist()
        for row in rows:
            row["text"] = row["text"][:SHEET_CHARACTERS]
        groups[name] = _smallest(count, [*groups.get(name, []), *rows])


def _smallest(count: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return heapq.nsmallest(count, rows, key=lambda row: row["id"])


def write_samples(stage: Staging, target: Path) -> None:
    """`samples.json` and `sheet.csv`, put together from what the parts' writers left."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {"kept": {}, "dropped": {}, "drawn": {}}
    cut: dict[str, Counter[str]] = {}
    for number, facts in stage.facts("written"):
        cut.setdefault(stage.source(number).name, Counter()).update(facts["passages"])
        for kind, found in facts["groups"].items():
            for name, rows in found.items():
                groups[kind].setdefault(name, []).extend(rows)
    for kind in ("kept", "dropped"):
        for name, rows in groups[kind].items():
            groups[kind][name] = _smallest(stage.config.samples, rows)
            for row in groups[kind][name]:
                row["text"] = row["text"][:SAMPLE_CHARACTERS]
    masked: dict[str, Counter[str]] = {}
    for number, facts in stage.facts("judged"):
        cut.setdefault(stage.source(number).name, Counter()).update(facts["cuts"])
        masked.setdefault(stage.source(number).name, Counter()).update(facts["masked"])
    about = {"kept": groups["kept"], "dropped": groups["dropped"], "lines_cut": _some(cut), "masked": _some(masked)}
    write_json(target / "samples.json", about)
    if stage.config.sheet:
        half = {"kept": (stage.config.sheet + 1) // 2, "dropped": stage.config.sheet // 2}
        drawn = [row for name, rows in groups["drawn"].items() for row in _smallest(half[name], rows)]
        _write_sheet(target / "sheet.csv", sorted(drawn, key=lambda row: row["id"]))


def _some(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(found.items())) for name, found in counts.items() if found.total()}


def _write_sheet(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_open(path) as file:
        out = csv.writer(file)
        out.writerow(SHEET)
        out.writerows([row["id"], row["source"], row["text"], "", ""] for row in rows)


def funnel(stage: Staging, decisions: Decisions) -> list[dict[str, Any]]:
    """What is left after each step, source by source, in the order of the steps. Bytes of step read are as stored."""
    table, rows = decisions.table, []
    steps_of = np.array([step for step, _ in table.names], object)[table["code"]]
    for number, source in enumerate(stage.config.sources):
        counts: dict[str, Counter[str]] = {"read": Counter(), "extract": Counter()}
        for part in stage.first(number):
            facts = json.loads(stage.path("ingested", part, "json").read_bytes())
            for step in counts:
                counts[step].update(facts[step])
        rows += [funnel_row(step, source.name, count["documents"], count["bytes"]) for step, count in counts.items()]
        left = (table.sources == number) & (steps_of != "extract")
        for step in _steps(stage, source):
            left &= steps_of != step
            size = table.left if step in AFTER_PASSAGES else table["size"]
            rows.append(funnel_row(step, source.name, int(left.sum()), int(size[left].sum())))
        if decisions.copies is not None:
            used = int((table.left[left] * decisions.copies[left].astype(np.int64)).sum())
            rows[-1].update(funnel_row("sampling", source.name, int(left.sum()), used))
    return rows


def _steps(stage: Staging, source: Source) -> list[str]:
    """The steps a source goes through after extraction, in order."""
    duplicates, clean = stage.config.duplicates, source.clean
    steps = {
        "lines": bool(clean.lines or clean.edge_lines or clean.clutter),
        "urls": source.urls is not None,
        "language": source.language is not None and source.format != "code",
        **dict.fromkeys(source.rules, True),
        "models": any(not use.sources or source.name in use.sources for use in stage.config.models),
        "urls_once": source.urls is not None and source.urls.once,
        "exact_duplicates": duplicates.exact != "none",
        "near_duplicates": duplicates.near is not None,
        "substrings": duplicates.substrings is not None,
        "semantic_duplicates": duplicates.semantic is not None,
        "decontaminate": stage.config.decontaminate is not None
        and bool(stage.problems or stage.config.decontaminate.sets),
        "sampling": stage.config.sampling is not None,
    }
    return [step for step, asked in steps.items() if asked]
