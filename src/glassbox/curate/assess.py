"""Pass 2: everything that can be said of a document by itself. Lines are cut; language, rules and classifiers judge."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.curate import staging
from glassbox.curate.documents import DOCUMENT, MEASURED
from glassbox.curate.edits import Cut
from glassbox.curate.ingest import ROWS
from glassbox.curate.models import clutter
from glassbox.curate.models.scoring import category_names, classified
from glassbox.curate.reading.addresses import address_keys, listed_words
from glassbox.curate.reading.personal import mask
from glassbox.curate.repeats import contamination, semantic
from glassbox.curate.repeats.exact import content_keys, text_keys
from glassbox.curate.repeats.minhash import signatures
from glassbox.curate.rules.language import identify_batch
from glassbox.curate.rules.lines import cut_edges, cut_lines
from glassbox.curate.rules.statistics import STATISTICS, statistics
from glassbox.curate.rules.verdicts import KEPT, Verdicts, judge_language, judge_statistics
from glassbox.curate.staging import COLUMNS, Staging, read_once
from glassbox.ledger.writing import atomic_path
from glassbox.recipe.sources import Source

BLANK_LINES = re.compile(r"\n\s*\n(?:\s*\n)+")
Step = tuple[str, list[list[Cut]]]
"""A cleaning step and, for each text, what it cut."""


def assess(folder: Path, number: int) -> None:
    """Leaves `judged-N.parquet` (DOCUMENT), the columns of `staging.COLUMNS` and `judged-N.json`."""
    stage = staging.load(folder)
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, *extra_columns(stage))}
    facts: dict[str, Any] = {"verdicts": [], "cuts": Counter(), "masked": Counter(), "hits": []}
    allowed = _allowed(stage, number)
    before = 0
    with (
        atomic_path(stage.path("judged", number, "parquet")) as path,
        pq.ParquetWriter(path, DOCUMENT, compression="lz4") as writer,
        pq.ParquetFile(stage.path("ingested", number, "parquet")) as table,
    ):
        for batch in table.iter_batches(ROWS):
            texts, steps = clean(batch["text"], stage.source(number), stage, allowed)
            document, found = _judged(stage, stage.source(number), batch, texts, steps, facts)
            writer.write_batch(document)
            for name, values in found.items():
                columns[name].append(values)
            facts["hits"] += [[before + row, *hit] for row, hit in _hits(stage, texts)]
            before += len(batch)
    verdicts: list[tuple[str, str]] = sorted({one for part in columns["code"] for one in part} - {(KEPT, "")})
    facts["verdicts"] = verdicts
    numbers = {(KEPT, ""): 0, **{one: place + 1 for place, one in enumerate(verdicts)}}
    columns["code"] = [np.array([numbers[one] for one in part], np.int16) for part in columns["code"]]
    for name, parts in columns.items():
        staging.write_array(stage.path(name, number, "npy"), _joined(parts, {**COLUMNS, **extra_columns(stage)}[name]))
    staging.write_facts(stage.path("judged", number, "json"), facts)


def extra_columns(stage: Staging) -> dict[str, Any]:
    """Columns beside COLUMNS that the settings ask for: signatures, embeddings, scores that sampling weighs."""
    near, meaning = stage.config.duplicates.near, stage.config.duplicates.semantic
    extra: dict[str, Any] = {"signature": (np.uint32, near.permutations)} if near else {}
    if meaning:
        extra["embedding"] = (np.float32, semantic.width(meaning))
    weighed = stage.config.sampling.scores if stage.config.sampling else ()
    return {**extra, **{f"score{k}": np.float32 for k in range(len(weighed))}}


def clean(texts: pa.Array, source: Source, stage: Staging, allowed: dict[int, int]) -> tuple[pa.Array, list[Step]]:
    """The texts after the source's cleaning steps (repair is done), and what each step cut."""
    steps: list[Step] = []
    if source.clean.edge_lines:
        texts, cuts = cut_edges(texts, source.clean.edge_lines.lines, allowed)
        steps.append(("edge_lines", cuts))
    if source.clean.lines:
        texts, cuts = cut_lines(texts, source.clean.lines)
        steps.append(("lines", cuts))
    if source.clean.clutter:
        model = _clutter(stage.artefacts[source.clean.clutter.stage])
        texts, cuts = clutter.edit(texts, model, source.clean.clutter.threshold)
        steps.append(("clutter", cuts))
    touched = [row for row in range(len(texts)) if any(cuts[row] for _, cuts in steps)]
    if touched:
        # A cut leaves the blank lines around it, which are only of use where there is something between them.
        values = texts.to_pylist()
        for row in touched:
            values[row] = BLANK_LINES.sub("\n\n", values[row]).strip("\n")
        texts = pa.array(values, pa.large_string())
    return texts, steps


def _judged(
    stage: Staging, source: Source, batch: pa.RecordBatch, texts: pa.Array, steps: list[Step], facts: dict[str, Any]
) -> tuple[pa.RecordBatch, dict[str, Any]]:
    n = len(batch)
    counts: list[dict[str, int]] = [{}] * n
    if source.clean.mask:
        texts, counts = mask(texts, source.clean.mask)
        steps = [(step, _masked(cuts, source.clean.mask)) for step, cuts in steps]
    lang, lang_score = identify_batch(texts) if source.format != "code" else ([""] * n, np.zeros(n, np.float32))
    metas = batch["meta"].to_pylist()
    bad = _bad_words(source.bad_words)
    values = statistics(texts, metas, dict(steps).get("lines", ()), source.rules, bad, batch["url"].to_pylist())
    cut = np.array([sum(len(cuts[row]) for _, cuts in steps) for row in range(n)], np.int32)
    verdicts = Verdicts.kept(n)
    rules = batch["url_rule"].to_pylist()
    for rule in sorted(set(rules) - {""}):
        verdicts.drop(np.array([one == rule for one in rules]), "urls", rule, np.ones(n, np.float32), 0)
    empty = values[:, STATISTICS.index("words")] == 0
    nothing = np.zeros(n, np.float32)
    verdicts.drop(empty & (cut == 0), "extract", "no_text", nothing, 1)
    verdicts.drop(empty, "lines", "no_text", nothing, 1)
    judge_language(verdicts, np.array(lang, object), lang_score, source)
    judge_statistics(verdicts, values, metas, np.array(lang, object), source)
    scores, ranked = classified(stage, source, texts, verdicts)

    facts["cuts"].update(one.rule if step == "lines" else step for step, cuts in steps for row in cuts for one in row)
    facts["masked"].update(sum((Counter(one) for one in counts), Counter()))
    sizes = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    ids = batch["id"].to_pylist()
    found: dict[str, Any] = {
        "code": list(zip(verdicts.step.tolist(), verdicts.rule.tolist(), strict=True)),
        "value": verdicts.value,
        "threshold": verdicts.threshold,
        "size": sizes,
        "id": np.array(ids, "S32"),
        "content": content_keys(texts, "normalised" if stage.config.duplicates.exact == "normalised" else "spaces"),
        "text": text_keys(texts),
        "address": address_keys(batch["url"].to_pylist()),
        **ranked,
    }
    if stage.config.duplicates.near:
        found["signature"] = signatures(texts, stage.config.duplicates.near)
    if stage.config.duplicates.semantic:
        found["embedding"] = semantic.embed(texts, stage.config.duplicates.semantic)
    columns = {
        **{name: batch[name] for name in ("id", "origin", "offset", "url", "meta")},
        "text": texts,
        "source": [source.name] * n,
        "lang": lang,
        "lang_score": lang_score,
        "category": category_names(stage, ranked["category"]),
        "scores": scores,
        "copies": np.ones(n, np.int32),
        "duplicates": np.zeros(n, np.int32),
        "lines_cut": cut,
        "cuts": [[{"step": step, **one._asdict()} for step, cuts in steps for one in cuts[row]] for row in range(n)],
        "masked": [list(one.items()) for one in counts],
        "n_chars": values[:, STATISTICS.index("characters")].astype(np.int64),
        "n_words": values[:, STATISTICS.index("words")].astype(np.int64),
        **{name: values[:, STATISTICS.index(name)] for name in MEASURED},
    }
    arrays = [pa.array(columns[field.name], field.type) for field in DOCUMENT]
    return pa.RecordBatch.from_arrays(arrays, schema=DOCUMENT), found


def _masked(cuts: list[list[Cut]], kinds: tuple[str, ...]) -> list[list[Cut]]:
    """The cuts with placeholders: what is kept beside a document holds no more personal data than its text."""
    texts, _ = mask(pa.array([cut.text for row in cuts for cut in row], pa.large_string()), kinds)
    found = iter(texts.to_pylist())
    return [[cut._replace(text=next(found)) for cut in row] for row in cuts]


def _hits(stage: Staging, texts: pa.Array) -> list[tuple[int, list[Any]]]:
    """(row, hit) of evaluation problems found in the texts."""
    if not stage.config.decontaminate:
        return []
    known = evaluations(stage.folder)
    return [(row, list(hit)) for row, hits in enumerate(contamination.hits(texts, known)) for hit in hits]


def _allowed(stage: Staging, number: int) -> dict[int, int]:
    """How many more of each shared edge line the part may keep."""
    path = stage.path("allowed", number, "npy")
    if not path.exists():
        return {}
    hashes, counts = np.load(path)
    return dict(zip(hashes.tolist(), counts.tolist(), strict=True))


def _joined(parts: list[NDArray], kind: Any) -> NDArray:
    kind, width = kind if isinstance(kind, tuple) else (kind, 0)
    empty = np.zeros((0, width) if width else 0, kind)
    return np.concatenate(parts).astype(kind, copy=False) if parts else empty


@read_once
def _bad_words(given: tuple[str, ...]) -> tuple[str, ...]:
    """The words, and those of the files among them."""
    return tuple(dict.fromkeys(listed_words(given)))


@read_once
def _clutter(folder: Path) -> Any:
    return clutter.load(folder)


@read_once
def evaluations(folder: Path) -> contamination.Evaluations:
    """The evaluation sets of the stage staged in `folder`; read once in a worker."""
    stage = staging.load(folder)
    assert stage.config.decontaminate
    return contamination.evaluations(stage.config.decontaminate, stage.problems)
