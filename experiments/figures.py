"""Means over seeds, differences with intervals, and lines with a band: what an experiment's results are shown as."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from glassbox.report.charts import nice_ticks, tick_label

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5th percentiles of Student's t with 1 to 9 degrees of freedom."""
RESAMPLES = 2000

TONES = ("#6b6c6e", "#a3561a", "#0f766e", "#2b5c9e", "#a02c5d", "#6a4fa3")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 60, 150, 44, 46


@dataclass(frozen=True)
class Difference:
    """A mean difference and its 95% intervals."""

    mean: float
    seeds_low: float
    """Student's t over the seeds: what another draw of weights and order of data could change."""
    seeds_high: float
    texts_low: float
    """Resampled held-out texts, seeds averaged: what another sample of texts could change."""
    texts_high: float


def difference(a_ST: NDArray[np.float64], b_ST: NDArray[np.float64], bytes_T: NDArray[np.float64]) -> Difference:
    """Bits per byte of arm b less those of arm a, from nats of S seeds on T texts; seeds and texts are paired."""
    gap_ST = (b_ST - a_ST) / math.log(2)
    per_seed = gap_ST.sum(1) / bytes_T.sum()
    centre = float(per_seed.mean())
    half = student(per_seed.tolist())
    draws_RT = np.random.default_rng(0).integers(0, len(bytes_T), (RESAMPLES, len(bytes_T)))
    sampled = gap_ST.mean(0)[draws_RT].sum(1) / bytes_T[draws_RT].sum(1)
    low, high = np.percentile(sampled, [2.5, 97.5])
    return Difference(centre, centre - half, centre + half, float(low), float(high))


def student(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of a mean; nan for a single value."""
    n = len(values)
    if n < 2:
        return math.nan
    t = T95[n - 2] if n - 2 < len(T95) else 1.96 + 2.5 / (n - 1)
    return t * stdev(values) / math.sqrt(n)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the head, as Markdown; all columns but the first to the right."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def with_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


@dataclass(frozen=True)
class Band:
    """A line of means over seeds with the lowest and highest seed around it."""

    name: str
    xs: Sequence[float]
    ys_SX: NDArray[np.float64]


def band_chart(bands: Sequence[Band], *, title: str, x_label: str, y_label: str) -> str:
    """A line per band, the range of its seeds shaded, its name at its end: an SVG file's text."""
    ys = np.concatenate([band.ys_SX.ravel() for band in bands])
    xs = [x for band in bands for x in band.xs]
    x_ticks, y_ticks = nice_ticks(0, max(xs), 5), nice_ticks(float(ys.min()), float(ys.max()), 5)
    low, high, far = y_ticks[0], y_ticks[-1], max(xs)

    def at(x: float, y: float) -> str:
        return (
            f"{LEFT + x / far * (WIDTH - LEFT - RIGHT):.1f} "
            f"{HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"
        )

    parts = [_text(LEFT, 22, title, "start", 16, "#1d2126"), _text(LEFT, HEIGHT - 6, x_label, "start")]
    parts.append(_text(LEFT, TOP - 8, y_label, "start"))
    for tick in y_ticks:
        parts.append(_path(f"M{at(0, tick)}L{at(far, tick)}", "#e2dfd6", 1))
        y = float(at(0, tick).split()[1])
        parts.append(_text(LEFT - 8, y + 4, tick_label(tick, y_ticks), "end"))
    for tick in x_ticks:
        if tick <= far:
            parts.append(
                _text(float(at(tick, low).split()[0]), HEIGHT - BOTTOM + 18, tick_label(tick, x_ticks), "middle")
            )
    ends = _apart([float(at(band.xs[-1], float(band.ys_SX[:, -1].mean())).split()[1]) for band in bands])
    for band, tone, end in zip(bands, TONES, ends, strict=False):
        lows, highs, means = band.ys_SX.min(0), band.ys_SX.max(0), band.ys_SX.mean(0)
        around = [at(x, y) for x, y in zip(band.xs, lows, strict=True)]
        around += [at(x, y) for x, y in zip(reversed(band.xs), highs[::-1], strict=True)]
        parts.append(Markup('<path d="M{}Z" fill="{}" fill-opacity="0.2"/>').format("L".join(around), tone))
        line = "L".join(at(x, y) for x, y in zip(band.xs, means, strict=True))
        parts.append(_path(f"M{line}", tone, 2))
        parts.append(_text(WIDTH - RIGHT + 10, end + 4, f"{band.name} {means[-1]:.3f}", "start", 13, tone))
    return str(
        Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{}" height="{}">{}</svg>\n').format(
            WIDTH,
            HEIGHT,
            WIDTH,
            HEIGHT,
            Markup('<rect width="100%" height="100%" fill="#fbfaf7"/>') + Markup("").join(parts),
        )
    )


def _apart(ys: list[float], room: float = 16) -> list[float]:
    """The heights of labels, moved down where two would overlap."""
    placed = list(ys)
    last = -math.inf
    for k in sorted(range(len(ys)), key=lambda k: ys[k]):
        last = placed[k] = max(ys[k], last + room)
    return placed


def _path(d: str, tone: str, width: int) -> Markup:
    return Markup('<path d="{}" fill="none" stroke="{}" stroke-width="{}"/>').format(d, tone, width)


def _text(x: float, y: float, text: str, anchor: str, size: int = 12, tone: str = "#6b6c6e") -> Markup:
    return Markup(
        '<text x="{}" y="{}" text-anchor="{}" font-size="{}" fill="{}" font-family="system-ui, sans-serif">{}</text>'
    ).format(f"{x:.1f}", f"{y:.1f}", anchor, size, tone, escape(text))
