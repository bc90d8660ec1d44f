"""Charts as inline SVG: real text, colours from the page's CSS variables, the same bytes every time.

Every function returns safe markup; all text that comes from artefacts is escaped. A chart is drawn about as wide as it
is shown, so that its text keeps its size on a telephone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from glassbox.report.format import number
from glassbox.report.svg import curve, picture, rule, short, words

WIDTH, HEIGHT = 300, 184
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 18, 26
"""Margins of a line chart around its plot."""
MOST_POINTS = 360
"""Points drawn of a line; of more, the lowest and highest of each stretch are kept, so that no spike is lost."""
SMOOTH_FROM = 60
"""Points from which a noisy line is drawn faint under its running mean."""

Point = tuple[float, float]
Place = Callable[[float, float], Point]
"""(step, value) to coordinates."""


@dataclass(frozen=True)
class Line:
    """A named series of (step, value) points; `tone` 1-6 picks the colour."""

    name: str
    points: tuple[Point, ...]
    tone: int = 1
    noisy: bool = False
    """Draw the running mean over the points if there are many."""


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    reach: float,
    marks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
) -> Markup:
    """Values over steps 0 to `reach`; `marks` are labelled verticals, where a phase starts."""
    ys = [y for line in lines for _, y in line.points]
    x_low, x_high = _widened(0.0, reach)
    low, high = _widened(min([0.0, *ys] if from_zero else ys), max(ys))
    ticks = nice_ticks(low, high, 4)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def at(x: float, y: float) -> Point:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_frame(ticks, [tick for tick in nice_ticks(x_low, x_high, 4) if tick.is_integer()], at, x_low)]
    parts += [_mark(at(x, low)[0], label) for x, label in marks]
    for line in lines:
        parts.append(_line(line, at))
    return picture(WIDTH, HEIGHT, _spoken(title, lines), parts)


def heat_map(rows_LE: Sequence[Sequence[float]], *, title: str) -> Markup:
    """Shares of tokens, layers down and experts across; full colour is twice the fair share or more."""
    layers, experts = len(rows_LE), max(len(row) for row in rows_LE)
    side = max(5.0, min(26.0, (WIDTH - LEFT - RIGHT) / experts))
    height = max(5.0, min(22.0, 168 / layers))
    parts = [Markup("")]
    for layer, row in enumerate(rows_LE):
        for expert, share in enumerate(row):
            relative = share * experts
            parts.append(
                Markup(
                    '<rect class="fill1" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}">'
                    "<title>layer {}, expert {}: {} of the tokens, {} × the fair share</title></rect>"
                ).format(
                    short(LEFT + expert * side), short(TOP + layer * height), short(side - 1), short(height - 1),
                    short(0.06 + 0.94 * min(relative, 2.0) / 2), layer, expert, f"{share:.1%}", number(relative, 3),
                )
            )  # fmt: skip
    bottom = TOP + layers * height
    for layer in sorted({0, layers - 1}):
        parts.append(words(LEFT - 6, TOP + (layer + 0.5) * height + 4, f"layer {layer}", "end"))
    for expert in sorted({0, experts - 1}):
        anchor = "start" if expert == 0 and experts > 1 else "end"
        x = LEFT + (expert if anchor == "start" else expert + 1) * side
        parts.append(words(x, bottom + 14, f"expert {expert}" if experts > 4 else str(expert), anchor))
    worst = max(max(row) * experts for row in rows_LE)
    return picture(
        WIDTH, bottom + 24, f"{title}: {layers} layers, {experts} experts; largest {worst:.2f} × fair", parts
    )


@dataclass(frozen=True)
class Dot:
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float
    shown: str
    tone: int = 1


def dot_chart(dots: Sequence[Dot], *, title: str, end: float | None = None, unit: str = "") -> Markup:
    """One row a value: a dot on its interval, from 0 to `end` (default: a little past the largest)."""
    left, row, width = 84, 34, 560
    reach = end or max(max(dot.high, dot.value) for dot in dots) * 1.08 or 1.0
    ticks = [tick for tick in nice_ticks(0.0, reach, 5) if tick <= reach * 1.0001]
    bottom = 10 + row * len(dots)

    def x_at(value: float) -> float:
        return left + min(max(value, 0.0), reach) / reach * (width - left - 88)

    parts = []
    for tick in ticks:
        x = x_at(tick)
        parts.append(rule(x, 6, x, bottom, "grid"))
        parts.append(words(x, bottom + 16, f"{number(tick * 100 if unit == '%' else tick, 3)}{unit}", "middle"))
    for index, dot in enumerate(dots):
        y = 10 + row * (index + 0.5)
        tone = f"tone{dot.tone}"
        parts += [
            words(left - 10, y + 4, dot.label, "end", "strong"),
            Markup('<line class="{} interval" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
                tone, short(x_at(dot.low)), short(y), short(x_at(dot.high)), short(y)
            ),
            Markup('<circle class="fill{}" cx="{}" cy="{}" r="5"><title>{}: {}</title></circle>').format(
                dot.tone, short(x_at(dot.value)), short(y), dot.label, dot.shown
            ),
            words(max(x_at(dot.high), x_at(dot.value)) + 9, y + 4, dot.shown, "start", "value"),
        ]
    spoken = "; ".join(f"{dot.label} {dot.shown}" for dot in dots)
    return picture(width, bottom + 24, f"{title}: {spoken}", parts)


def nice_ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round values that span [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten."""
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points, with the lowest and the highest of each stretch among them."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) / (most // 2))
    kept: list[Point] = [points[0]]
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """The mean of up to `window` points around each; near the ends of fewer, and nearly as many on both sides."""
    sums = list(accumulate((y for _, y in points), initial=0.0))
    half, means = window // 2, []
    for index, (x, _) in enumerate(points):
        before, after = min(half, index), min(half, len(points) - 1 - index)
        most = min(before, after) + half // 2
        first, last = index - min(before, most), index + min(after, most)
        means.append((x, (sums[last + 1] - sums[first]) / (last + 1 - first)))
    return means


def _line(line: Line, at: Place) -> Markup:
    tone = f"tone{line.tone}"
    if len(line.points) == 1:
        x, y = at(*line.points[0])
        return Markup('<circle class="fill{}" cx="{}" cy="{}" r="3.5"/>').format(line.tone, short(x), short(y))
    if line.noisy and len(line.points) >= SMOOTH_FROM:
        mean = running_mean(line.points, len(line.points) // 25 * 2 + 1)
        return curve(_placed(line.points, at), f"{tone} faint") + curve(_placed(mean, at), tone)
    return curve(_placed(line.points, at), tone)


def _placed(points: Sequence[Point], at: Place) -> list[Point]:
    return [at(*point) for point in thinned(points)]


def _frame(ticks: list[float], x_ticks: list[float], at: Place, x_low: float) -> Markup:
    parts = []
    for tick in ticks:
        y = at(x_low, tick)[1]
        parts.append(rule(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(words(LEFT - 7, y + 4, tick_label(tick, ticks), "end"))
    for tick in x_ticks:
        x = at(tick, ticks[0])[0]
        if LEFT - 1 <= x <= WIDTH - RIGHT + 1:
            anchor = "end" if x > WIDTH - RIGHT - 14 else "middle"
            parts.append(words(x, HEIGHT - BOTTOM + 16, tick_label(tick, x_ticks), anchor))
    return Markup("").join(parts)


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """A tick as short as it can be told from its neighbours: 0.002, 1.5, 12k, 3M."""
    largest = max(abs(tick) for tick in ticks)
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if largest >= size:
            size = 1e3 if unit == "k" else size
            return f"{value / size:g}{unit}" if value else "0"
    if value == 0 or all(len(f"{tick:g}") <= 6 for tick in ticks):
        return f"{value:g}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(power)}"


def _mark(x: float, label: str) -> Markup:
    anchor, shift = ("end", -4) if x > WIDTH * 0.72 else ("start", 4)
    return rule(x, TOP - 12, x, HEIGHT - BOTTOM, "mark") + words(x + shift, TOP - 4, label, anchor, "note")


def _spoken(title: str, lines: Sequence[Line]) -> str:
    """What a screen reader says in place of the chart: where each line starts and ends."""
    ends = [
        f"{line.name} from {number(line.points[0][1])} at step {number(line.points[0][0], 9)} "
        f"to {number(line.points[-1][1])} at step {number(line.points[-1][0], 9)}"
        for line in lines
    ]
    return f"{title}: {'; '.join(ends)}"


def _widened(low: float, high: float) -> Point:
    """A range of some width around values that may all be equal, but for rounding."""
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-30):
        return low, high
    margin = abs(low) * 0.1 or 1.0
    return (low if low == 0 else low - margin), high + margin
