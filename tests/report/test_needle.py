"""Maps of needles: cells say what was found, the legend says chance, and a damaged file costs nothing else."""

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from glassbox.report.needle import needle_map
from tests.report.conftest import edit_json
from tests.report.reading import Page, page_of


def test_cells_say_what_was_found() -> None:
    shares = {(512, 0.0): (3, 4), (512, 1.0): (1, 4), (1024, 0.0): (0, 4)}
    root = ElementTree.fromstring(str(needle_map(shares, [512, 1024], [0.0, 1.0], 0.1, title="base <b>, chosen")))
    assert [title.text for title in root.iter("title")] == [
        "512 tokens, depth 0 %: 3 of 4 found",
        "512 tokens, depth 100 %: 1 of 4 found",
        "1,024 tokens, depth 0 %: 0 of 4 found",
        "1,024 tokens, depth 100 %: beyond the context",
    ]
    numbers = {text.text: text.attrib["class"] for text in root.iter("text") if text.attrib["class"] != "tick"}
    assert numbers == {"75": "on", "25": "value", "0": "value"}
    shades = [float(one.attrib["fill-opacity"]) for one in root.iter("rect") if "fill-opacity" in one.attrib]
    assert shades[:3] == [0.76, 0.29, 0.06]
    assert "chance 10 %" in [text.text for text in root.iter("text")]
    assert root.attrib["aria-label"] == "base <b>, chosen: 4 of 12 needles found"


@given(
    lengths=st.lists(st.integers(1, 10**6), min_size=1, max_size=9, unique=True),
    depths=st.lists(st.floats(0, 1), min_size=1, max_size=9, unique=True),
    chance=st.none() | st.floats(0, 1),
)
def test_everything_stays_in_the_frame(lengths: list[int], depths: list[float], chance: float | None) -> None:
    root = ElementTree.fromstring(str(needle_map({}, lengths, depths, chance, title="t")))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for one in root.iter("rect"):
        x, y, across, down = (float(one.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + across <= width
        assert 0 <= y <= y + down <= height


def test_the_page_shows_every_model_both_ways(page: Page) -> None:
    assert page.find("h4").count("Needles in haystacks") == 1
    spoken = [
        attrs["aria-label"] for tag, attrs, _ in page.elements if tag == "svg" and "needles" in attrs["aria-label"]
    ]
    assert [label.split(":")[0] for label in spoken] == [
        f"{model}, needles {way}" for way in ("written", "chosen") for model in ("base", "sft", "dpo", "rl")
    ]
    protocol = next(text for text in page.find("p", class_="aside") if "16 rows a cell" in text)
    assert "“The magic number is ….” · " in protocol
    assert "chosen among 10 numbers" in protocol
    assert not [text for text in page.find("p", class_="aside") if "needle exact" in text]


def test_odd_cells_are_left_out(copy: Path) -> None:
    def change(value: dict) -> dict:
        value["models"]["base"] = [{"length": 512, "depth": "deep", "n": 4}, {"length": 64, "depth": 0, "n": 0}, 7]
        return value

    edit_json(copy / "scores" / "needle.json", change)
    labels = [attrs.get("aria-label", "") for _, attrs, _ in page_of(copy).elements]
    assert "base, needles written: 0 of 0 needles found" in labels
    (copy / "scores" / "needle.json").write_text("[")
    broken = page_of(copy)
    assert "Needles in haystacks" not in broken.find("h4")
    assert broken.find("table", class_="bits")
