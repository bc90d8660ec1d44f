"""Write a run's page: gather the sections from its artefacts, fill the template, put `report.html` in place whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from glassbox.ledger.writing import atomic_open
from glassbox.report import corpus, overview, quality, scores, tokens
from glassbox.report.artefacts import RunFacts, StageFacts, read_run
from glassbox.report.training import training

MAKERS = ("curate", "synthesize")
"""Kinds that make documents and leave a funnel."""
CLASSIFIERS = ("classifier", "clutter")
TRAINERS = ("pretrain", "sft", "dpo", "grpo")
Section = TypeVar("Section")


@dataclass(frozen=True)
class Gathered:
    """A section's parts, and the stages of its kind that have nothing to show yet."""

    parts: list[Any]
    absent: str
    """A sentence for the page where there is nothing, or not yet all; else empty."""


def write_report(run: Path) -> Path:
    """Write `run`/report.html and return its path; a stage that is missing or unfinished is said to be so.

    The same artefacts give the same bytes. Raises RequestError if `run` holds no run.
    """
    path = run / "report.html"
    page = render(read_run(run))
    with atomic_open(path, "wb") as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def render(facts: RunFacts) -> str:
    """The page as HTML."""
    evaluations = _gather(facts, ("evaluate",), lambda stage: scores.evaluation(facts, stage))
    trainings = _gather(facts, TRAINERS, lambda stage: training(facts, stage))
    token_facts = tokens.tokens(facts)
    values = {
        "head": overview.head(facts),
        "headline": evaluations.parts[-1] if evaluations.parts else None,
        "stages": overview.stages(facts),
        "crawls": _gather(facts, ("crawl",), lambda stage: corpus.crawl(facts, stage)),
        "curations": _gather(facts, MAKERS, lambda stage: corpus.curation(facts, stage)),
        "models": _models(facts),
        "tokens": Gathered([token_facts] if token_facts else [], _absent(facts.kinds("tokenizer", "tokenize"))),
        "trainings": trainings,
        "evaluations": evaluations,
        "notes": facts.notes,
        "title": f"{facts.recipe.name} · glassbox",
    }
    return _environment().get_template("template.html").render(values)


def _gather(facts: RunFacts, kinds: tuple[str, ...], section: Callable[[StageFacts], Section | None]) -> Gathered:
    """The section of every stage of these kinds that has one."""
    stages = facts.kinds(*kinds)
    parts = [part for stage in stages if (part := section(stage)) is not None]
    return Gathered(parts, _absent(stages))


def _models(facts: RunFacts) -> Gathered | None:
    """Classifiers of documents and of lines, in the recipe's order; None for a recipe without any."""

    def part(stage: StageFacts) -> quality.Quality | None:
        return (quality.clutter if stage.kind == "clutter" else quality.classifier)(facts, stage)

    return _gather(facts, CLASSIFIERS, part) if facts.kinds(*CLASSIFIERS) else None


def _absent(stages: list[StageFacts]) -> str:
    if not stages:
        return "No stage of this recipe does this."
    waiting = [f"{stage.name} ({stage.state})" for stage in stages if not stage.done]
    return f"Not finished: {', '.join(waiting)}." if waiting else ""


def _environment() -> Environment:
    """Autoescape everywhere: the page shows text of untrusted documents."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
