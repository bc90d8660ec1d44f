"""Checks of curation: evaluation problems found in documents, and how far people agree with what was decided."""

from dataclasses import dataclass
from typing import Any

from glassbox.recipe.curation import CurateStage
from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows, whole
from glassbox.report.dropped import ID_CHARACTERS
from glassbox.report.format import count, excerpt, is_number, number, percent

HITS_SHOWN = 40
DOCUMENTS_SHOWN = 4
"""Documents named beside a problem."""
DISAGREED_SHOWN = 12


@dataclass(frozen=True)
class Hit:
    """A problem and the documents that hold it."""

    evaluation: str
    problem: str
    documents: list[str]
    """First letters of their ids, the first few."""
    more: int


@dataclass(frozen=True)
class Contamination:
    """Evaluation problems that were looked for and found."""

    sentence: str
    sets: list[tuple[str, list[str]]]
    """(set, cells: problems, found, share, documents, texts too short, unreadable)."""
    hits: list[Hit]
    more: int


@dataclass(frozen=True)
class Agreement:
    """People's verdicts beside the stage's."""

    sentence: str
    command: str
    """What to type next, where nobody has judged yet; else empty."""
    cells: list[tuple[str, list[str]]]
    """(people say, documents kept and dropped by the stage)."""
    disagreed: list[str]
    more: int


def contamination(facts: RunFacts, stage: StageFacts) -> Contamination | None:
    """Evaluation by evaluation what was looked for and found, and what hit what; None if nothing was looked for."""
    report = as_dict(facts.json(stage, "contamination.json"))
    sets = as_rows(report.get("sets"))
    if not sets:
        return None
    hits = [
        Hit(
            excerpt(one.get("name"), 80), excerpt(problem, 120), _ids(ids[:DOCUMENTS_SHOWN]), len(ids[DOCUMENTS_SHOWN:])
        )
        for one in sets
        for problem, ids in _found(one).items()
    ]
    hits.sort(key=lambda hit: -len(hit.documents) - hit.more)
    return Contamination(_looked_for(report), [_set(one) for one in sets], hits[:HITS_SHOWN], len(hits[HITS_SHOWN:]))


def _looked_for(report: dict[str, Any]) -> str:
    share = report.get("share")
    how_much = f"more than {percent(share, 0)} of a problem's words" if is_number(share) and share else "any of them"
    gone, cut = whole(report, "documents_dropped"), whole(report, "documents_cut")
    return (
        f"Problems were looked for by {number(report.get('ngram'))}-word grams; a document may not hold {how_much}. "
        f"{_documents(gone)} dropped for it{f'; {_documents(cut)} rid of the passages' if cut else ''}."
    )


def _documents(n: int) -> str:
    return "1 document was" if n == 1 else f"{n:,} documents were"


def _found(one: dict[str, Any]) -> dict[str, list[Any]]:
    return {problem: ids for problem, ids in as_dict(one.get("found")).items() if isinstance(ids, list)}


def _set(one: dict[str, Any]) -> tuple[str, list[str]]:
    found, items = _found(one), whole(one, "items")
    documents = {str(name) for ids in found.values() for name in ids}
    cells = [count(items), f"{len(found):,}", percent(len(found) / items if items > 0 else None), f"{len(documents):,}"]
    return excerpt(one.get("name"), 80), [*cells, count(one.get("too_short")), count(one.get("skipped"))]


def _ids(names: list[Any]) -> list[str]:
    return [excerpt(str(name)[:ID_CHARACTERS], ID_CHARACTERS) for name in names]


def agreement(facts: RunFacts, stage: StageFacts) -> Agreement | None:
    """How far people agree, or how to find out; None for a stage without a sheet."""
    run = facts.recipe.name
    found = as_dict(facts.read(facts.path / f"agreement-{stage.name}.json"))
    if not is_number(found.get("agreement")):
        if not (stage.folder / "sheet.csv").exists():
            return None
        curated = [name for name, one in facts.recipe.stages.items() if isinstance(one, CurateStage)]
        named = "" if curated[-1:] == [stage.name] else f" --stage {stage.name}"
        return Agreement("Nobody has checked these verdicts yet.", f"glassbox sheet {run} sheet.csv{named}", [], [], 0)
    sentence = (
        f"People and the stage agree on {percent(found['agreement'])} of {count(found.get('documents'))} documents "
        f"(95 % interval {percent(found.get('low'))} to {percent(found.get('high'))}); Cohen's κ is "
        f"{number(found.get('kappa'), 2)}: 1 is full agreement, 0 what chance would give."
    )
    pairs = as_dict(found.get("human/machine"))
    cells = [
        (said, [count(pairs.get(f"{said}/{decided}")) for decided in ("keep", "drop")]) for said in ("keep", "drop")
    ]
    disagreed = found.get("disagreed")
    ids = disagreed if isinstance(disagreed, list) else []
    return Agreement(sentence, "", cells, _ids(ids[:DISAGREED_SHOWN]), len(ids[DISAGREED_SHOWN:]))
