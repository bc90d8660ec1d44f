"""Charts of shares: everything lies inside the frame, and cells say what they count."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from glassbox.report.charts import Line
from glassbox.report.squares import confusion_map, share_chart

points = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=60)


@given(st.lists(points, min_size=1, max_size=3), st.booleans())
def test_any_points_stay_in_the_frame(series: list[list[tuple[float, float]]], diagonal: bool) -> None:
    lines = [Line(f"<{n}>", tuple(one), n + 1) for n, one in enumerate(series)]
    root = ElementTree.fromstring(str(share_chart(lines, title="t", across="<x>", diagonal=diagonal)))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for path in root.iter("path"):
        for pair in path.attrib["d"][1:].split("L"):
            x, y = map(float, pair.split())
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert len(list(root.iter("path"))) == len(lines)


def test_high_shares_fill_the_chart() -> None:
    line = Line("F1", ((0.0, 0.97), (1.0, 0.99)))
    root = ElementTree.fromstring(str(share_chart([line], title="t", across="x")))
    ticks = [text.text for text in root.iter("text") if text.attrib["text-anchor"] == "end"]
    assert ticks == ["0.96", "0.97", "0.98", "0.99", "1"]


def test_cells_say_what_was_taken_for_what() -> None:
    svg = confusion_map([[8, 2], [0, 0]], ["a<", "b" * 40], title="t")
    root = ElementTree.fromstring(str(svg))
    titles = [title.text for title in root.iter("title")]
    assert titles[:2] == ["8 texts of a< taken for a< (80.0 %)", f"2 texts of a< taken for {'b' * 18} … (20.0 %)"]
    opacity = [float(cell.attrib["fill-opacity"]) for cell in root.iter("rect")]
    assert opacity == [0.81, 0.24, 0.05, 0.05]
    assert root.attrib["aria-label"] == "t: 2 classes; 8 of 10 texts right"
