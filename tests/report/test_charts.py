"""Scales, thinning and smoothing against brute force; markup in names is escaped."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.report.charts import (
    MOST_POINTS,
    Dot,
    Line,
    dot_chart,
    heat_map,
    line_chart,
    nice_ticks,
    running_mean,
    thinned,
    tick_label,
)

values = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_span_the_range_in_round_steps(low: float, width: float, wanted: int) -> None:
    high = low + width
    ticks = nice_ticks(low, high, wanted)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * max(1.0, abs(low), width)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= wanted + 3
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - allowed) for allowed in (1, 2, 2.5, 5)) < 1e-2


@given(st.lists(values, min_size=1, max_size=3000))
def test_thinning_keeps_ends_and_extremes(ys: list[float]) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS + 4
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert {min(ys), max(ys)} <= {y for _, y in kept}
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_the_running_mean_is_a_mean_of_neighbours() -> None:
    points = [(float(x), float(x * x)) for x in range(40)]
    means = running_mean(points, 9)
    assert [x for x, _ in means] == [x for x, _ in points]
    assert means[20][1] == pytest.approx(sum(x * x for x in range(16, 25)) / 9)
    assert means[0][1] == pytest.approx(sum(x * x for x in range(3)) / 3)


@pytest.mark.parametrize(
    ("value", "ticks", "label"),
    [
        (0.0, [0.0, 1.0], "0"),
        (0.0025, [0.0, 0.0025], "0.0025"),
        (0.0005, [0.0, 0.00025, 0.0005], "5e-4"),
        (5e-05, [0.0, 2.5e-05, 5e-05], "5e-5"),
        (7500.0, [0.0, 10_000.0], "7.5k"),
        (2e6, [0.0, 4e6], "2M"),
    ],
)
def test_tick_labels_are_short(value: float, ticks: list[float], label: str) -> None:
    assert tick_label(value, ticks) == label


@given(st.lists(st.lists(values, min_size=1, max_size=90), min_size=1, max_size=4), st.booleans())
def test_any_lines_give_sound_svg_inside_its_frame(series: list[list[float]], from_zero: bool) -> None:
    lines = [Line(f"<{n}&>", tuple((float(x), y) for x, y in enumerate(ys)), noisy=True) for n, ys in enumerate(series)]
    svg = line_chart(lines, title='a "title"', reach=90.0, marks=[(0.0, "<b>")], from_zero=from_zero)
    root = ElementTree.fromstring(str(svg))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for path in root.iter("path"):
        for pair in path.attrib["d"][1:].split("L"):
            x, y = map(float, pair.split())
            assert -0.1 <= x <= width + 0.1
            assert -0.1 <= y <= height + 0.1


def test_heat_map_cells_say_their_share() -> None:
    root = ElementTree.fromstring(str(heat_map([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], title="load")))
    titles = [title.text for title in root.iter("title")]
    assert titles[0] == "layer 0, expert 0: 50.0% of the tokens, 1.5 × the fair share"
    assert len(titles) == 6
    assert "largest 3.00 × fair" in root.attrib["aria-label"]


def test_dots_stand_in_order_of_their_values() -> None:
    dots = [Dot("a", 0.2, 0.1, 0.3, "20 %"), Dot("b<", 0.9, 0.8, 1.0, "90 %"), Dot("zero", 0.0, 0.0, 0.0, "0 %")]
    root = ElementTree.fromstring(str(dot_chart(dots, title="t", end=1.0, unit="%")))
    x = [float(circle.attrib["cx"]) for circle in root.iter("circle")]
    assert x[2] < x[0] < x[1]
    assert (x[0] - x[2]) / (x[1] - x[2]) == pytest.approx(0.2 / 0.9, abs=1e-3)
