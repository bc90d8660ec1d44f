"""What was dropped, by rule, and excerpts of documents that were kept and dropped."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.report.artefacts import RunFacts, StageFacts
from glassbox.report.format import count, excerpt, is_number, number

EXCERPT_CHARACTERS = 700
ID_CHARACTERS = 12
"""Of an id; `glassbox explain` takes the first letters of one."""
COLUMNS = ("source", "stage", "rule")
NUMBERS = ("value", "threshold", "n_chars")


@dataclass(frozen=True)
class Dropped:
    """A rule and how many documents it removed."""

    rule: str
    step: str
    documents: int
    share: float
    """Of the largest count, for the bar."""
    characters: str
    values: str
    """Smallest and largest value of the documents it removed."""
    threshold: str
    sources: str
    """Of which source how many; empty where all that was dropped is of one source."""


@dataclass(frozen=True)
class Sample:
    """An excerpt of a document, kept or dropped."""

    source: str
    where: str
    reason: str
    """Rule, value and threshold; empty for a kept document."""
    text: str
    id: str
    """The first letters of its id, enough for `glassbox explain`; empty if it has none."""


@dataclass
class _Sums:
    """What is added up of one rule's documents."""

    sources: Counter[str] = field(default_factory=Counter)
    values: list[float] = field(default_factory=list)
    thresholds: set[float] = field(default_factory=set)
    characters: int = 0
    measured: bool = False


def dropped(facts: RunFacts, stage: StageFacts) -> list[Dropped]:
    """Documents by the rule that dropped them, most first, counted over the side table of everything dropped."""
    sums: dict[tuple[str, str], _Sums] = {}
    for path in sorted(stage.folder.glob("dropped/**/*.parquet")):
        try:
            rows = _counted(pq.ParquetFile(path))
        except (OSError, KeyError, pa.ArrowException) as error:
            facts.note(f"{path.relative_to(facts.path)} is not readable ({type(error).__name__}) and was left out")
            continue
        for row in rows:
            _add(sums.setdefault((str(row["stage"]), str(row["rule"])), _Sums()), row)
    most = max((found.sources.total() for found in sums.values()), default=1)
    ordered = sorted(sums.items(), key=lambda item: (-item[1].sources.total(), item[0]))
    many = len({source for found in sums.values() for source in found.sources}) > 1
    return [_row(step, rule, found, most, many) for (step, rule), found in ordered]


def _counted(file: pq.ParquetFile) -> list[dict[str, Any]]:
    """Documents of a file by source, step and rule, with the reach of their values and their characters."""
    numbers = [name for name in NUMBERS if name in file.schema_arrow.names]
    table = file.read(columns=[*COLUMNS, *numbers])
    wanted = [(name, how) for name in numbers for how in (("sum",) if name == "n_chars" else ("min", "max"))]
    return table.group_by(list(COLUMNS)).aggregate([([], "count_all"), *wanted]).to_pylist()


def _add(sums: _Sums, row: dict[str, Any]) -> None:
    sums.sources[str(row["source"])] += row["count_all"]
    sums.values += [row[key] for key in ("value_min", "value_max") if is_number(row.get(key))]
    sums.thresholds |= {row[key] for key in ("threshold_min", "threshold_max") if is_number(row.get(key))}
    if is_number(row.get("n_chars_sum")):
        sums.characters += row["n_chars_sum"]
        sums.measured = True


def _row(step: str, rule: str, sums: _Sums, most: int, many: bool) -> Dropped:
    documents = sums.sources.total()
    shares = sorted(sums.sources.items())
    return Dropped(
        rule=excerpt(rule, 80),
        step=excerpt(step.replace("_", " "), 80),
        documents=documents,
        share=documents / most,
        characters=count(sums.characters) if sums.measured else "–",
        values=_reach(sums.values),
        threshold=_reach(list(sums.thresholds)),
        sources=", ".join(f"{excerpt(source, 80)} {n:,}" for source, n in shares) if many else "",
    )


def _reach(values: Sequence[float]) -> str:
    ends = dict.fromkeys(number(end, 3) for end in ((min(values), max(values)) if values else ()))
    return " to ".join(ends) or "–"


def samples(
    drawn: Any, rules: Sequence[str], explained: bool = True
) -> tuple[list[Sample], list[tuple[str, list[Sample]]]]:
    """Kept documents, and dropped ones under their rules in the order of `rules`, from whichever nesting of lists
    samples.json has. `explained`: whether `glassbox explain` knows them, so that their ids are worth showing."""
    kept: list[Sample] = []
    removed: dict[str, list[Sample]] = {}
    for row in _documents(drawn):
        sample = _sample(row, explained)
        if row.get("rule"):
            removed.setdefault(excerpt(row["rule"], 80), []).append(sample)
        else:
            kept.append(sample)
    places = {rule: place for place, rule in reversed(list(enumerate(rules)))}
    return _interleaved(kept), sorted(removed.items(), key=lambda item: (places.get(item[0], len(rules)), item[0]))


def _interleaved(found: list[Sample]) -> list[Sample]:
    """One of each source in turn."""
    by_source: dict[str, list[Sample]] = {}
    for sample in found:
        by_source.setdefault(sample.source, []).append(sample)
    return [sample for turn in zip_longest(*by_source.values()) for sample in turn if sample]


def _documents(value: Any) -> list[dict[str, Any]]:
    """All mappings that hold a text, at whatever depth."""
    if isinstance(value, dict):
        if "text" in value:
            return [value]
        value = list(value.values())
    return [row for item in value for row in _documents(item)] if isinstance(value, list) else []


def _other(row: dict[str, Any]) -> str:
    """What else a document was dropped for: the one that stayed, the evaluation's problem, or the answer it gives."""
    other = str(row["other"])
    if re.fullmatch("[0-9a-f]{32}", other):
        return f"like {other[:ID_CHARACTERS]}"
    return f"holds {other}" if row.get("stage") == "decontaminate" else f"answers {other}"


def _sample(row: dict[str, Any], explained: bool) -> Sample:
    where = row.get("url") or row.get("origin") or ""
    reason = ""
    if row.get("rule"):
        reason = str(row["rule"])
        if row.get("value") is not None:
            reason += f": {number(row['value'])}"
        if row.get("threshold") is not None:
            reason += f", threshold {number(row['threshold'])}"
        if row.get("other"):
            reason += f", {_other(row)}"
    id = row.get("id") if explained else None
    return Sample(
        source=excerpt(row.get("source"), 80),
        where=excerpt(where, 160),
        reason=excerpt(reason, 200),
        text=excerpt(row["text"], EXCERPT_CHARACTERS),
        id=excerpt(str(id or "")[:ID_CHARACTERS], ID_CHARACTERS),
    )
