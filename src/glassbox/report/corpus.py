"""From pages to documents: the crawl, and all that a stage which makes documents leaves about itself."""

from dataclasses import dataclass
from typing import Any

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows
from glassbox.report.balance import Balance, balance
from glassbox.report.checks import Agreement, Contamination, agreement, contamination
from glassbox.report.dropped import Dropped, Sample, dropped, samples
from glassbox.report.format import count, excerpt, is_number, number, percent, size
from glassbox.report.funnel import Funnel, funnels, sentence

SKIPPED_SHOWN = 12
FAILED_SHOWN = 8
OPEN_FUNNELS = 4
"""With more than so many funnels, those of single sources are folded away."""


@dataclass(frozen=True)
class Crawl:
    """What a crawl brought home."""

    stage: str
    facts: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    """(address, reason), the first few."""
    more: int


@dataclass(frozen=True)
class Tally:
    """Counts by what (down) and by source (across)."""

    title: str
    what: str
    sources: list[str]
    rows: list[tuple[str, float, list[str]]]
    """(what, share of the largest count, counts: in all, then source by source)."""


@dataclass(frozen=True)
class Curation:
    """Everything about one stage that makes documents."""

    stage: str
    facts: list[tuple[str, str]]
    """Figures of a synthesize stage."""
    sentence: str
    funnels: list[Funnel]
    dropped: list[Dropped]
    kept: list[Sample]
    removed: list[tuple[str, list[Sample]]]
    """(rule, its samples)."""
    tallies: list[Tally]
    """Lines cut, personal data masked."""
    balance: Balance | None
    contamination: Contamination | None
    agreement: Agreement | None
    skipped: list[tuple[str, str, str]]
    skipped_total: int | None
    """None for a stage that reads no input files."""

    @property
    def open(self) -> bool:
        """Whether every source's funnel is shown unfolded."""
        return len(self.funnels) <= OPEN_FUNNELS


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
    """Funnel, dropped documents, samples and checks of a curate or synthesize stage; None before it is finished."""
    rows = as_rows(facts.json(stage, "funnel.json"))
    if not rows:
        return None
    drawn = facts.json(stage, "samples.json")
    gone = dropped(facts, stage)
    kept, removed = samples(drawn, [row.rule for row in gone], stage.kind == "curate")
    skipped = facts.lines(stage, "skipped.jsonl")
    shown = [
        (excerpt(row.get("file"), 200), number(row.get("offset"), 12), excerpt(row.get("reason"), 200))
        for row in skipped[:SKIPPED_SHOWN]
    ]
    tallies = [
        _tally("Lines cut out of documents", "Rule", as_dict(drawn).get("lines_cut")),
        _tally("Personal data masked", "Kind", as_dict(drawn).get("masked")),
    ]
    return Curation(
        stage=stage.name,
        facts=_asked(facts, stage) if stage.kind == "synthesize" else [],
        sentence=sentence(rows, *(["solutions were asked for"] if stage.kind == "synthesize" else [])),
        funnels=funnels(rows),
        dropped=gone,
        kept=kept,
        removed=removed,
        tallies=[tally for tally in tallies if tally],
        balance=balance(facts, stage),
        contamination=contamination(facts, stage),
        agreement=agreement(facts, stage),
        skipped=shown,
        skipped_total=len(skipped) if (stage.folder / "skipped.jsonl").exists() else None,
    )


def _asked(facts: RunFacts, stage: StageFacts) -> list[tuple[str, str]]:
    """Who was asked how much by a synthesize stage, and how many problems it solved."""
    summary = as_dict(facts.json(stage, "summary.json"))
    solved, problems = summary.get("solved"), summary.get("problems")
    share = f" ({percent(solved / problems)})" if is_number(solved) and is_number(problems) and problems else ""
    return [
        ("Asked", excerpt(summary.get("generator"), 80)),
        ("Problems", count(problems)),
        ("Solved at least once", f"{count(solved)}{share}"),
        ("Solutions", count(summary.get("replies"))),
        ("Kept", count(summary.get("kept"))),
    ]


def _tally(title: str, what: str, counts: Any) -> Tally | None:
    """A table of {source: {what: count}}, the largest first; None if there is nothing to count."""
    by_source = {
        source: {name: n for name, n in as_dict(found).items() if is_number(n) and n > 0}
        for source, found in as_dict(counts).items()
    }
    totals: dict[str, float] = {}
    for found in by_source.values():
        for name, n in found.items():
            totals[name] = totals.get(name, 0) + n
    if not totals:
        return None
    sources, most = [source for source, found in by_source.items() if found], max(totals.values())
    rows = []
    for name, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        cells = [count(total), *(count(by_source[source].get(name, 0)) for source in sources)]
        rows.append((excerpt(name.replace("_", " "), 80), total / most, cells if len(sources) > 1 else cells[:1]))
    return Tally(title, what, [excerpt(source, 80) for source in sources] if len(sources) > 1 else [], rows)
