"""What sampling did to the shares of categories."""

from dataclasses import dataclass

from glassbox.recipe.curation import CurateStage
from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, whole
from glassbox.report.format import count, excerpt, number, percent, size


@dataclass(frozen=True)
class Category:
    """A category's share of the text before and after."""

    name: str
    bars: tuple[float, float]
    """Before and after, as shares of the widest bar."""
    mark: float | None
    """Where the target stands; None without one."""
    cells: list[str]
    """Documents, text, share before, share after, target, factor."""


@dataclass(frozen=True)
class Balance:
    """All categories, the largest after sampling first."""

    sentence: str
    categories: list[Category]


def balance(facts: RunFacts, stage: StageFacts) -> Balance | None:
    """Shares of the text by category before and after sampling, with the recipe's targets; None without sampling."""
    rows = {name: as_dict(row) for name, row in as_dict(facts.json(stage, "sampling.json")).items()}
    before = {name: max(0, whole(row, "bytes")) for name, row in rows.items()}
    after = {name: max(0, whole(row, "bytes_used")) for name, row in rows.items()}
    given, used = sum(before.values()), sum(after.values())
    if not given:
        return None
    settings = stage.settings.sampling if isinstance(stage.settings, CurateStage) else None
    targets = settings.targets if settings else {}
    shares = {name: (before[name] / given, after[name] / used if used else 0.0) for name in rows}
    widest = max(*(share for both in shares.values() for share in both), *(targets.get(name, 0.0) for name in rows))
    categories = []
    for name in sorted(rows, key=lambda name: (-after[name], -before[name], name)):
        was, is_now = shares[name]
        factor = number(after[name] / before[name], 3) if before[name] else "–"
        cells = [count(rows[name].get("documents")), size(before[name]), percent(was), percent(is_now)]
        target = targets.get(name)
        categories.append(
            Category(
                name=excerpt(name, 80),
                bars=(was / widest, is_now / widest),
                mark=None if target is None else target / widest,
                cells=[*cells, "–" if target is None else percent(target), f"× {factor}" if factor != "–" else factor],
            )
        )
    sentence = f"{size(given)} of text in {len(rows):,} categories became {size(used)}, counted as often as it is used."
    return Balance(sentence, categories)
