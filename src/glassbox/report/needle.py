"""Needles in haystacks: for each model and way of scoring a map of lengths and depths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from glassbox.report.artefacts import RunFacts, StageFacts, as_dict, as_rows, whole
from glassbox.report.format import NONE, count, excerpt, is_number, percent
from glassbox.report.overview import Model
from glassbox.report.svg import picture, rule, short, words

WAYS = {"exact": "written", "choice": "chosen"}
"""Field of a cell -> the way in which its needles were found."""
CELL, ROW = 58, 30
LEFT, TOP = 62, 8
SCALE, LEGEND_CELLS = 10, 4
"""Steps of the legend, and how many cells it is as wide as."""
DARK = 2 / 3
"""Share from which on a cell's number is written in the paper's colour."""

Shares = Mapping[tuple[int, float], tuple[int, int]]
"""(length, depth) -> (needles found, needles hidden)"""


@dataclass(frozen=True)
class NeedleMap:
    """A model's map, with the width in pixels at which its text has the size of a chart's."""

    model: Model
    svg: Markup
    width: int


@dataclass(frozen=True)
class Needles:
    """What an evaluate stage found of its needles."""

    ways: list[tuple[str, list[NeedleMap]]]
    """How needles were found, and the map of every model."""
    protocol: list[str]


def needles(facts: RunFacts, stage: StageFacts, models: list[Model]) -> Needles | None:
    """The maps of an evaluate stage; None if it has hidden no needles."""
    found = as_dict(facts.json(stage, "needle.json"))
    protocol, chance = as_dict(found.get("protocol")), found.get("chance")
    cells = {model: as_rows(as_dict(found.get("models")).get(model.name)) for model in models}
    ways = []
    for way, name in WAYS.items():
        shares = {model: _shares(rows, way) for model, rows in cells.items()}
        places = [place for own in shares.values() for place in own]
        lengths = sorted({length for length, _ in places}.union(_lengths(protocol)))
        depths = sorted({depth for _, depth in places})
        level = float(chance) if way == "choice" and is_number(chance) and chance is not None else None
        width = _width(lengths)
        maps = [
            NeedleMap(model, needle_map(own, lengths, depths, level, title=f"{model.name}, needles {name}"), width)
            for model, own in shares.items()
        ]
        if places:
            ways.append((name, maps))
    return Needles(ways, _protocol(protocol)) if ways else None


def needle_map(shares: Shares, lengths: list[int], depths: list[float], chance: float | None, *, title: str) -> Markup:
    """Shares of needles found, depths down and lengths across, and the scale of colours below with the level of chance.

    A cell with a dash: the model has no room for rows so long.
    """
    parts = [words(LEFT - 8, TOP + (i + 0.5) * ROW + 4, percent(depth, 0), "end") for i, depth in enumerate(depths)]
    for column, length in enumerate(lengths):
        x = LEFT + column * CELL
        for line, depth in enumerate(depths):
            parts.append(_cell(x, TOP + line * ROW, shares.get((length, depth)), length, depth))
        parts.append(words(x + CELL / 2, TOP + len(depths) * ROW + 16, count(length), "middle"))
    bottom, middle = TOP + len(depths) * ROW, TOP + len(depths) * ROW / 2
    parts.append(words(LEFT + len(lengths) * CELL / 2, bottom + 33, "tokens of the row", "middle"))
    parts.append(
        Markup('<text class="tick" transform="translate(12 {}) rotate(-90)" text-anchor="middle">depth</text>').format(
            short(middle)
        )
    )
    parts += _legend(bottom + 64, chance)
    hidden = sum(n for _, n in shares.values())
    spoken = f"{title}: {count(sum(found for found, _ in shares.values()))} of {count(hidden)} needles found"
    return picture(_width(lengths), bottom + 94, spoken, parts)


def _width(lengths: list[int]) -> int:
    return LEFT + max(len(lengths), LEGEND_CELLS) * CELL + 8


def _cell(x: float, y: float, share: tuple[int, int] | None, length: int, depth: float) -> Markup:
    place = f"{count(length)} tokens, depth {percent(depth, 0)}"
    if share is None:
        dash = words(x + CELL / 2 - 1, y + ROW / 2 + 3, NONE, "middle")
        return Markup(
            '<g><title>{}: beyond the context</title><rect class="hollow" x="{}" y="{}" width="{}" height="{}"/>{}</g>'
        ).format(place, short(x), short(y), CELL - 2, ROW - 2, dash)
    found, n = share
    part = found / n
    return Markup('<g><title>{}: {} of {} found</title>{}{}</g>').format(
        place, found, n, _shade(x, y, CELL - 2, ROW - 2, part),
        words(x + CELL / 2 - 1, y + ROW / 2 + 3, f"{100 * part:.0f}", "middle", "on" if part >= DARK else "value"),
    )  # fmt: skip


def _shade(x: float, y: float, width: float, height: float, share: float) -> Markup:
    """A rectangle in the colour of a share."""
    return Markup('<rect class="fill1" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"/>').format(
        short(x), short(y), short(width), short(height), short(0.06 + 0.94 * min(max(share, 0.0), 1.0))
    )


def _legend(y: float, chance: float | None) -> list[Markup]:
    """The colours from no needle to all of them."""
    step = LEGEND_CELLS * CELL / SCALE
    parts = [_shade(LEFT + i * step, y, step, 9, (i + 0.5) / SCALE) for i in range(SCALE)]
    parts += [words(LEFT, y + 24, "0 %", "start"), words(LEFT + LEGEND_CELLS * CELL, y + 24, "100 % found", "end")]
    if chance is not None:
        x = LEFT + chance * LEGEND_CELLS * CELL
        parts += [rule(x, y - 5, x, y + 14, "tone6"), words(x + 4, y - 6, f"chance {percent(chance, 0)}", "start")]
    return parts


def _shares(rows: list[dict[str, Any]], way: str) -> dict[tuple[int, float], tuple[int, int]]:
    """The cells of a model that say all that is needed."""
    return {
        (whole(row, "length"), float(row["depth"])): (whole(row, way), whole(row, "n"))
        for row in rows
        if is_number(row.get("depth")) and whole(row, "length") > 0 and 0 <= whole(row, way) <= whole(row, "n") > 0
    }


def _lengths(protocol: dict[str, Any]) -> list[int]:
    """The lengths asked for, those without room included."""
    asked = protocol.get("lengths")
    return [int(length) for length in asked if is_number(length)] if isinstance(asked, list) else []


def _protocol(protocol: dict[str, Any]) -> list[str]:
    """How the needles were hidden, in words."""
    texts = [excerpt(protocol.get(name), 120).replace("{value}", "…") for name in ("needle", "question")]
    parts = [f"“{text}”" for text in texts if text]
    numbers = {name: protocol.get(name) for name in ("samples", "digits", "choices")}
    wording = {"samples": "{} rows a cell", "digits": "numbers of {} digits", "choices": "chosen among {} numbers"}
    return [*parts, *(wording[name].format(count(value)) for name, value in numbers.items() if is_number(value))]
