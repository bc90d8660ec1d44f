"""Pass 3: what depends on other documents. Copies, repeated passages, evaluation problems, sampling.

Only hashes and verdicts of all documents are at hand (`staging.Table`); texts are read again where they are needed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.curate.assess import extra_columns
from glassbox.curate.models import sampling
from glassbox.curate.models.scoring import classifier
from glassbox.curate.models.selection import threshold_for_share
from glassbox.curate.repeats.contamination import stretches
from glassbox.curate.repeats.exact import exact_copies
from glassbox.curate.repeats.near import near_copies
from glassbox.curate.repeats.semantic import semantic_copies
from glassbox.curate.repeats.substrings import repeated_passages
from glassbox.curate.staging import Staging, Table
from glassbox.curate.words import word_hashes

DUPLICATES = ("urls_once", "exact_duplicates", "near_duplicates", "semantic_duplicates")
"""Steps whose dropped documents repeat another one."""


@dataclass
class Decisions:
    """What pass 3 decided beside the verdicts of its table."""

    table: Table
    passages: dict[int, list[tuple[int, int, str]]] = field(default_factory=lambda: defaultdict(list))
    """Document -> stretches [start, end) of its text, in characters, that are cut, and by which step."""
    held: dict[int, str] = field(default_factory=dict)
    """Document dropped, or cut, for an evaluation problem -> evaluation/problem."""
    copies: NDArray[np.int32] | None = None
    """How often each document is used, where sampling says so."""
    sampled: dict[str, Any] = field(default_factory=dict)
    """Category -> documents, bytes before and after, and the bytes before corrected for the classifier's confusions."""


def decide(stage: Staging, hits: dict[int, list[list[Any]]]) -> Decisions:
    """Everything between documents, in order. `hits`: document -> evaluation problems found in it."""
    table = gathered(stage)
    decisions = Decisions(table)
    _keep_best(stage, table)
    rank = priority(stage, table)
    _addresses(stage, table, rank)
    _copies(stage, table, rank)
    _passages(stage, decisions, rank)
    _meaning(stage, table, rank)
    _evaluations(stage, decisions, hits)
    _sample(stage, decisions)
    _point_to_those_that_stay(table)
    return decisions


def gathered(stage: Staging) -> Table:
    """The columns of all parts put together, with one numbering of the verdicts."""
    local = [[tuple(one) for one in facts["verdicts"]] for _, facts in stage.facts("judged")]
    names = sorted({one for part in local for one in part})
    table = Table(stage, names, extra_columns(stage))
    for number, part in enumerate(local):
        numbers = np.array([0, *(names.index(one) + 1 for one in part)], np.int16)
        table["code"][table.rows(number)] = numbers[table["code"][table.rows(number)]]
    return table


def priority(stage: Staging, table: Table) -> NDArray[np.int64]:
    """All documents, those first that stay when documents repeat others: by source, preference, hash of the text (of
    its plain form first, so that documents alike in it stand together), hash of the address."""
    keys = [table["address"], table["text"], table["content"][:, 1], table["content"][:, 0]]
    preferences = {"longest": "size", "quality": "rank"}
    keys += [-table[preferences[name]].astype(np.float64) for name in reversed(stage.config.duplicates.prefer)]
    return np.lexsort([*keys, table.sources])


def texts(table: Table, documents: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    """(document, text as judged) of the given documents, which must be sorted."""
    for number in range(len(table.staging.parts)):
        rows = table.rows(number)
        low, high = np.searchsorted(documents, [rows.start, rows.stop])
        wanted = documents[low:high] - rows.start
        if not len(wanted):
            continue
        with pq.ParquetFile(table.staging.path("judged", number, "parquet")) as file:
            start = 0
            for batch in file.iter_batches(1024, columns=["text"]):
                here = wanted[(wanted >= start) & (wanted < start + len(batch))]
                for row, text in zip(here, batch["text"].take(pa.array(here - start)).to_pylist(), strict=True):
                    yield int(row) + rows.start, text
                start += len(batch)


def without(text: str, passages: list[tuple[int, int, str]]) -> str:
    """The text without the stretches."""
    pieces, at = [], 0
    for start, end, _ in sorted(passages):
        pieces.append(text[at : max(at, start)])
        at = max(at, end)
    return "".join([*pieces, text[at:]])


def with_signs(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch of words with the signs that stand before its first and after its last word up to white space."""
    after = re.compile(r"[^\w\s]+(?=\s|$)").match(text, end)
    before = re.search(r"(?:^|\s)([^\w\s]+)$", text[max(0, start - 16) : start])
    return start - len(before[1]) if before else start, after.end() if after else end


def _alive(table: Table, rank: NDArray[np.int64]) -> NDArray[np.int64]:
    return rank[table.kept()[rank]]


def _keep_best(stage: Staging, table: Table) -> None:
    """Of the documents that a model is applied to, the share that it scores highest."""
    for use in stage.config.models:
        if use.share is None:
            continue
        mine = [n for n, source in enumerate(stage.config.sources) if not use.sources or source.name in use.sources]
        here = table.kept() & np.isin(table.sources, mine)
        least = threshold_for_share(table["rank"][here], table["size"][here], use.share)
        table.drop(here & (table["rank"] < least), "models", f"{use.stage}.best_share", table["rank"], float(least))


def _drop_copies(table: Table, kept: NDArray[np.int64], step: str, rule: str, value: Any, threshold: float) -> None:
    copies = (kept != np.arange(len(kept))) & table.kept()
    table.other[copies] = kept[copies]
    table.drop(copies, step, rule, value, threshold)


def _addresses(stage: Staging, table: Table, rank: NDArray[np.int64]) -> None:
    once = [n for n, source in enumerate(stage.config.sources) if source.urls and source.urls.once]
    alive = _alive(table, rank)
    alive = alive[np.isin(table.sources[alive], once) & (table["address"][alive] != 0)]
    if not len(alive):
        return
    _, first, inverse = np.unique(table["address"][alive], return_index=True, return_inverse=True)
    kept = np.arange(len(table))
    kept[alive] = alive[first[inverse]]
    _drop_copies(table, kept, "urls_once", "same_address", 1.0, 1.0)


def _copies(stage: Staging, table: Table, rank: NDArray[np.int64]) -> None:
    """Exact and near duplicates."""
    settings, memory = stage.config.duplicates, stage.config.engine.memory
    alive = _alive(table, rank)
    if settings.exact != "none" and len(alive):
        kept = exact_copies(table["content"], alive, stage.folder, memory)
        _drop_copies(table, kept, "exact_duplicates", "equal_text", 1.0, 1.0)
    alive = _alive(table, rank)
    if settings.near and len(alive):
        kept, similarity = near_copies(
            table["signature"], alive, settings.near, lambda some: texts(table, some), stage.folder, memory
        )
        rule = "minhash_band" if settings.near.check == "none" else "minhash_similarity"
        threshold = 0.0 if settings.near.check == "none" else settings.near.threshold
        _drop_copies(table, kept, "near_duplicates", rule, similarity, threshold)


def _passages(stage: Staging, decisions: Decisions, rank: NDArray[np.int64]) -> None:
    """Passages that stand elsewhere too; a document left with too few words goes."""
    settings, table = stage.config.duplicates.substrings, decisions.table
    alive = _alive(table, rank)
    if settings is None or not len(alive):
        return
    found = repeated_passages(
        lambda some: texts(table, some), alive, settings, stage.folder, stage.config.engine.memory
    )
    stretches_of = defaultdict(list)
    for document, start, end in zip(*(column.tolist() for column in found), strict=True):
        stretches_of[document].append((start, end))
    touched = np.unique(found[0])
    words = np.zeros(len(table), np.float32)
    for document, text in texts(table, touched):
        decisions.passages[document] += [(*with_signs(text, *one), "substrings") for one in stretches_of[document]]
        left = pa.array([without(text, decisions.passages[document])], pa.large_string())
        words[document] = len(word_hashes(left)[0])
        table.left[document] = len(left[0].as_buffer())
    short = np.zeros(len(table), np.bool_)
    short[touched] = words[touched] < settings.min_words
    table.drop(short, "substrings", "words_left", words, settings.min_words)


def _meaning(stage: Staging, table: Table, rank: NDArray[np.int64]) -> None:
    settings = stage.config.duplicates.semantic
    alive = _alive(table, rank)
    if settings is None or not len(alive):
        return
    kept, similarity = semantic_copies(
        table["embedding"], alive, settings, stage.seed, stage.folder, stage.config.engine.memory
    )
    _drop_copies(table, kept, "semantic_duplicates", "cosine", similarity, settings.threshold)


def _evaluations(stage: Staging, decisions: Decisions, hits: dict[int, list[list[Any]]]) -> None:
    """Documents that hold evaluation problems: dropped, or the matches cut out with their surroundings."""
    settings, table = stage.config.decontaminate, decisions.table
    if settings is None:
        return
    share = np.zeros(len(table), np.float32)
    gone = np.zeros(len(table), np.bool_)
    found = np.array([document for document in sorted(hits) if table["code"][document] == 0], np.int64)
    for document in found.tolist():
        best = max(hits[document], key=lambda one: one[2])
        share[document], gone[document] = best[2], True
        decisions.held[document] = f"{best[0]}/{best[1]}"
    if settings.cut is not None:
        for document, text in texts(table, found):
            cuts = stretches(len(text), [(start, end) for *_, start, end in hits[document]], settings.cut)
            if cuts is None:
                continue
            passages = [*decisions.passages.get(document, ()), *((*cut, "decontaminate") for cut in cuts)]
            left = without(text, passages)
            # What stays beside the match may be a passage that is cut because it stands elsewhere.
            if not left.strip():
                continue
            gone[document] = False
            decisions.passages[document] = passages
            table.left[document] = len(left.encode())
    table.drop(gone, "decontaminate", "evaluation_ngrams", share, settings.share)


def _sample(stage: Staging, decisions: Decisions) -> None:
    """Copies of each document by category and score; without any, it is dropped."""
    settings, table = stage.config.sampling, decisions.table
    if settings is None:
        return
    alive = np.flatnonzero(table.kept())
    names = classifier(stage.artefacts[settings.category]).names if settings.category else ()
    category = table["category"][alive].astype(np.int64) if settings.category else None
    scores = {f"{one.stage}.{one.score}": table[f"score{k}"][alive] for k, one in enumerate(settings.scores)}
    sizes = table.left[alive]
    factors = sampling.factors(sizes, category, names, scores, settings)
    decisions.copies = np.ones(len(table), np.int32)
    decisions.copies[alive] = sampling.copies(table["id"][alive], factors, stage.seed)
    factor = np.ones(len(table), np.float32)
    factor[alive] = factors
    table.drop(decisions.copies == 0, "sampling", "down_sampled", factor, 1.0)
    if category is not None:
        used = decisions.copies[alive].astype(np.int64)
        for number, name in enumerate(names):
            mine = category == number
            before, after = int(sizes[mine].sum()), int((sizes * used)[mine].sum())
            decisions.sampled[name] = {"documents": int(mine.sum()), "bytes": before, "bytes_used": after}
        quality = orjson.loads((stage.artefacts[settings.category] / "quality.json").read_bytes())
        counted = np.array([row["bytes"] for row in decisions.sampled.values()], np.float64)
        corrected = sampling.true_masses(np.array(quality["confusion"], np.float64), counted)
        for name, masses in zip(names, corrected, strict=True):
            decisions.sampled[name]["bytes_corrected"] = round(float(masses))


def _point_to_those_that_stay(table: Table) -> None:
    """What a copy repeats may itself have gone as a copy later: point to the document at the end of the chain."""
    steps = np.array([step in DUPLICATES for step, _ in table.names])
    while True:
        copies = np.flatnonzero(table.other >= 0)
        onward = copies[steps[table["code"][table.other[copies]]]]
        if not len(onward):
            return
        table.other[onward] = table.other[table.other[onward]]


def hits_of(stage: Staging) -> dict[int, list[list[Any]]]:
    """Document -> the evaluation problems that pass 2 found in it."""
    found: dict[int, list[list[Any]]] = defaultdict(list)
    before = 0
    for number, facts in stage.facts("judged"):
        for row, *hit in facts["hits"]:
            found[before + row].append(hit)
        before += _documents(stage.path("size", number, "npy"))
    return found


def _documents(path: Path) -> int:
    return len(np.load(path, mmap_mode="r"))
