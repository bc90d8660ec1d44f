"""The few SVG elements that charts are put together from; all text is escaped."""

from collections.abc import Sequence

from markupsafe import Markup


def short(value: float) -> str:
    """A coordinate with at most two decimals, written as short as can be."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    ends = (short(value) for value in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(style, *ends)


def words(x: float, y: float, text: str, anchor: str, style: str = "tick") -> Markup:
    """Text whose start, middle or end is at (x, y)."""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, short(x), short(y), anchor, text
    )


def curve(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Straight pieces from point to point."""
    joined = "L".join(f"{short(x)} {short(y)}" for x, y in points)
    return Markup('<path class="line {}" d="M{}"/>').format(style, joined)


def picture(width: float, height: float, spoken: str, parts: Sequence[Markup]) -> Markup:
    """The whole drawing; `spoken` is what a screen reader says in its place."""
    return Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}">{}</svg>').format(
        short(width), short(height), spoken, Markup("").join(parts)
    )
