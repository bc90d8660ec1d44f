"""From pages to documents: the crawl, the funnel, what was dropped and why."""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows, whole
from glassbox.report.format import count, excerpt, is_number, number, percent, size

EXCERPT_CHARACTERS = 700
SKIPPED_SHOWN = 12
FAILED_SHOWN = 8


@dataclass(frozen=True)
class Crawl:
    """What a crawl brought home."""

    stage: str
    facts: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    """(address, reason), the first few."""
    more: int


@dataclass(frozen=True)
class Step:
    """What is left after a step of the pipeline."""

    name: str
    documents: int
    size: str
    tokens: str
    kept: str
    """Share of the documents that were read."""
    share: float
    lost: str
    """Documents that this step removed, signed; empty if none."""


@dataclass(frozen=True)
class Funnel:
    """A source from reading to the end."""

    source: str
    steps: list[Step]


@dataclass(frozen=True)
class Dropped:
    """A rule and how many documents it removed."""

    rule: str
    step: str
    documents: int
    share: float
    """Of the largest count, for the bar."""
    sources: str


@dataclass(frozen=True)
class Sample:
    """An excerpt of a document, kept or dropped."""

    source: str
    where: str
    reason: str
    """Rule, value and threshold; empty for a kept document."""
    text: str


@dataclass(frozen=True)
class Curation:
    """Everything about one curate stage."""

    stage: str
    sentence: str
    funnels: list[Funnel]
    dropped: list[Dropped]
    kept: list[Sample]
    removed: list[tuple[str, list[Sample]]]
    """(rule, its samples)."""
    asides: list[str]
    """Sentences on lines cut and on evaluation problems found."""
    skipped: list[tuple[str, str, str]]
    skipped_total: int


def crawl(facts: RunFacts, stage: StageFacts) -> Crawl | None:
    """Pages, bytes and failures of a crawl; None before it is finished."""
    report = as_dict(facts.json(stage, "crawl.json"))
    if not report:
        return None
    failed = as_rows(report.get("failed"))
    figures = [
        ("Pages", count(report.get("pages"))),
        ("HTML", size(report.get("bytes"))),
        ("Failed", count(len(failed))),
    ]
    figures += [(label, str(report[key])) for label, key in (("Site", "site"), ("Python", "python")) if key in report]
    shown = [(excerpt(row.get("url"), 160), excerpt(row.get("reason"), 200)) for row in failed[:FAILED_SHOWN]]
    return Crawl(stage.name, figures, shown, len(failed) - len(shown))


def curation(facts: RunFacts, stage: StageFacts) -> Curation | None:
    """Funnel, dropped documents and samples of a curate stage; None before it is finished."""
    rows = as_rows(facts.json(stage, "funnel.json"))
    if not rows:
        return None
    samples = facts.json(stage, "samples.json")
    kept, removed = _samples(samples)
    skipped = facts.lines(stage, "skipped.jsonl")
    shown = [
        (excerpt(row.get("file"), 200), number(row.get("offset"), 12), excerpt(row.get("reason"), 200))
        for row in skipped[:SKIPPED_SHOWN]
    ]
    funnels = _funnels(rows)
    return Curation(
        stage=stage.name,
        sentence=_sentence(funnels, rows),
        funnels=funnels,
        dropped=_dropped(facts, stage),
        kept=kept,
        removed=removed,
        asides=[*_lines_cut(samples), *_contamination(facts, stage)],
        skipped=shown,
        skipped_total=len(skipped),
    )


def _funnels(rows: list[dict[str, Any]]) -> list[Funnel]:
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(str(row.get("source", "")), []).append(row)
    return [Funnel(source, _steps(found)) for source, found in by_source.items()]


def _steps(rows: list[dict[str, Any]]) -> list[Step]:
    first = whole(rows[0], "documents")
    steps, before = [], first
    for row in rows:
        documents = whole(row, "documents")
        share = documents / first if first else 0.0
        lost = f"−{before - documents:,}" if documents < before else ""
        steps.append(
            Step(
                str(row.get("step", "")).replace("_", " "),
                documents,
                size(row.get("bytes")),
                count(row.get("tokens")),
                percent(share),
                min(1.0, share),
                lost,
            )
        )
        before = documents
    return steps


def _sentence(funnels: list[Funnel], rows: list[dict[str, Any]]) -> str:
    """What was read and what was kept, over all sources."""
    read = sum(funnel.steps[0].documents for funnel in funnels)
    kept = sum(funnel.steps[-1].documents for funnel in funnels)
    last = {str(row.get("source", "")): row for row in rows}
    text = size(sum(whole(row, "bytes") for row in last.values()))
    share = f" ({percent(kept / read)})" if read else ""
    return f"{read:,} documents were read and {kept:,} kept{share}, {text} of text."


def _dropped(facts: RunFacts, stage: StageFacts) -> list[Dropped]:
    """Documents by the rule that dropped them, counted over the side table of everything dropped."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for path in sorted(stage.folder.glob("dropped/**/*.parquet")):
        try:
            table = pq.ParquetFile(path).read(columns=["source", "stage", "rule"])
        except (OSError, ArrowException) as error:
            facts.note(f"{path.relative_to(facts.path)} is not readable ({type(error).__name__}) and was left out")
            continue
        for row in table.group_by(["source", "stage", "rule"]).aggregate([([], "count_all")]).to_pylist():
            where = (str(row["stage"]), str(row["rule"]))
            counts.setdefault(where, Counter())[str(row["source"])] += row["count_all"]
    most = max((found.total() for found in counts.values()), default=1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return [
        Dropped(
            rule,
            step,
            found.total(),
            found.total() / most,
            ", ".join(f"{source} {documents:,}" for source, documents in sorted(found.items())),
        )
        for (step, rule), found in ordered
    ]


def _samples(samples: Any) -> tuple[list[Sample], list[tuple[str, list[Sample]]]]:
    """Kept documents, and dropped ones under their rules, from whichever nesting of lists the file has."""
    kept: list[Sample] = []
    removed: dict[str, list[Sample]] = {}
    for row in _documents(samples):
        sample = _sample(row)
        if row.get("rule"):
            removed.setdefault(str(row["rule"]), []).append(sample)
        else:
            kept.append(sample)
    return _interleaved(kept), sorted(removed.items())


def _lines_cut(samples: Any) -> list[str]:
    """Lines cut out of documents, by source and rule."""
    sentences = []
    for source, rules in as_dict(as_dict(samples).get("lines_cut")).items():
        counts = {rule: n for rule, n in as_dict(rules).items() if is_number(n) and n}
        if counts:
            parts = ", ".join(f"{rule.replace('_', ' ')} {n:,}" for rule, n in counts.items())
            sentences.append(f"Lines cut from documents of {source}: {parts}.")
    return sentences


def _contamination(facts: RunFacts, stage: StageFacts) -> list[str]:
    report = as_dict(facts.json(stage, "contamination.json"))
    if not report:
        return []
    found = report.get("problems_found")
    problems, grams, dropped = (count(report.get(key)) for key in ("problems", "ngram", "documents_dropped"))
    return [
        f"{problems} evaluation problems were looked for by {grams}-word grams; "
        f"{len(found) if isinstance(found, list) else 0:,} were found, in {dropped} documents that were dropped for it."
    ]


def _interleaved(samples: list[Sample]) -> list[Sample]:
    """One of each source in turn."""
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    return [sample for turn in zip_longest(*by_source.values()) for sample in turn if sample]


def _documents(value: Any) -> list[dict[str, Any]]:
    """All mappings that hold a text, at whatever depth."""
    if isinstance(value, dict):
        if "text" in value:
            return [value]
        value = list(value.values())
    return [row for item in value for row in _documents(item)] if isinstance(value, list) else []


def _sample(row: dict[str, Any]) -> Sample:
    where = row.get("url") or row.get("origin") or row.get("id")
    reason = ""
    if row.get("rule"):
        reason = f"{row['rule']}: {number(row.get('value'))}"
        if row.get("threshold") is not None:
            reason += f", threshold {number(row['threshold'])}"
        if row.get("other"):
            reason += f", like {row['other']}"
    return Sample(
        str(row.get("source", "")), excerpt(where, 160), excerpt(reason, 200), excerpt(row["text"], EXCERPT_CHARACTERS)
    )
