"""The funnel: what is left of each source, and of all together, after each step."""

from dataclasses import dataclass
from typing import Any

from glassbox.report.artefacts import whole
from glassbox.report.format import count, percent, size

ALL = "All sources"


@dataclass(frozen=True)
class Step:
    """What is left after a step."""

    name: str
    documents: str
    removed: str
    """Documents that this step removed, signed; empty if none."""
    size: str
    tokens: str
    left: str
    """Share of the text (bytes) that extraction gave; empty for the step before it, whose bytes are as stored."""
    bar: tuple[float, float] | None
    """What is left and what this step took, as shares of the widest bar."""
    still: bool
    """Whether the step removed nothing."""


@dataclass(frozen=True)
class Funnel:
    """A source from reading to the end."""

    source: str
    steps: list[Step]


def funnels(rows: list[dict[str, Any]]) -> list[Funnel]:
    """The funnel of all sources together, if there are several, and of each, from the rows of funnel.json."""
    sources = _by_source(rows)
    both = [Funnel(ALL, _steps(_together(list(sources.values()))))] if len(sources) > 1 else []
    return both + [Funnel(source, _steps(found)) for source, found in sources.items()]


def sentence(rows: list[dict[str, Any]], began: str = "documents were read") -> str:
    """What there was (`began` says of what) and what was kept, over all sources."""
    sources = list(_by_source(rows).values())
    read, kept = (sum(whole(found[end], "documents") for found in sources) for end in (0, -1))
    text, left = (sum(whole(found[end], "bytes") for found in sources) for end in (1 if _stored(sources[0]) else 0, -1))
    share = f" ({percent(kept / read)})" if read else ""
    of_text = f" of {size(text)} ({percent(left / text)})" if text else ""
    return f"{read:,} {began} and {kept:,} kept{share}, {size(left)}{of_text} of text."


def _by_source(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row.get("source", "")), []).append(row)
    return found


def _stored(rows: list[dict[str, Any]]) -> bool:
    """Whether the first row counts bytes as stored (pages with their markup), not text."""
    return len(rows) > 1 and [row.get("step") for row in rows[:2]] == ["read", "extract"]


def _together(sources: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All sources' steps in an order that agrees with each where there is one.

    A source without a step stays as it was before it.
    """
    order: list[str] = []
    for rows in sources:
        place = len(order)
        for row in reversed(rows):  # a new step comes right before the one that follows it in its source
            name = str(row.get("step", ""))
            if name in order:
                place = order.index(name)
            else:
                order.insert(place, name)
    summed = [dict.fromkeys(("documents", "bytes", "tokens"), 0) for _ in order]
    for rows in sources:
        seen: set[str] = set()
        at = 0
        for name, total in zip(order, summed, strict=True):
            seen.add(name)
            # A source may take the same steps in another order: it moves on when all of its own up to there are past.
            while at + 1 < len(rows) and str(rows[at + 1].get("step", "")) in seen:
                at += 1
            for key in total:
                total[key] += whole(rows[at], key)
    return [{"step": name, **total} for name, total in zip(order, summed, strict=True)]


def _steps(rows: list[dict[str, Any]]) -> list[Step]:
    first = 1 if _stored(rows) else 0
    text = whole(rows[first], "bytes")
    widest = max(1, *(whole(row, "bytes") for row in rows[first:]))
    steps, before = [], rows[0]
    for number, row in enumerate(rows):
        documents, left = whole(row, "documents"), whole(row, "bytes")
        gone = whole(before, "documents") - documents
        taken = whole(before, "bytes") - left if number > first else 0
        steps.append(
            Step(
                name=str(row.get("step", "")).replace("_", " "),
                documents=f"{documents:,}",
                removed=f"−{gone:,}" if gone > 0 else "",
                size=size(row.get("bytes")),
                tokens=count(row.get("tokens")) if number >= first else "",
                left=percent(left / text) if text and number >= first else "",
                bar=(max(0, left) / widest, max(0, taken) / widest) if number >= first else None,
                still=number > first and gone == 0 and taken == 0,
            )
        )
        before = row
    return steps
