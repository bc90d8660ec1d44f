"""The proof by training, at the size of a toy: pages parted honestly, one plan for all arms, figures that add up."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from experiments.curation import arms_of
from experiments.pages import Page
from experiments.training import Plan

from experiments import curation, figures, pages
from glassbox.errors import RequestError
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.loading import build, parse
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.text import TokenizeStage
from tests.tiny import NOUNS, SENTENCES

WORDS = sorted({word for text in SENTENCES for word in text.lower().strip(".").split() if word.isalpha()} | set(NOUNS))
MENU = "Home | News | Weather | Sport | Contact | Terms of use | Privacy"
TINY = Plan(
    network=Network(dim=16, layers=1, hidden=32, attention=Attention(heads=2, kv_heads=1), init_std=0.2),
    steps=4,
    rows=2,
    context=32,
    evaluations=2,
    windows=8,
)


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(14)).capitalize() + "."


def gold_text(number: int) -> str:
    draw = random.Random(number)
    return "\n\n".join(" ".join(sentence(draw) for _ in range(3)) for _ in range(4))


def html_of(text: str) -> str:
    body = "".join(f"<p>{one}</p>" for one in text.split("\n\n"))
    return f"<html><head><title>t</title></head><body><ul><li><a href='/'>{MENU}</a></li></ul>{body}</body></html>"


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 60 HTML pages, of which 40 have gold text, and the file of it."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(60):
        (folder / f"page-{number:02d}.html").write_text(html_of(gold_text(number)), encoding="utf-8")
    gold = tmp_path / "gold.jsonl"
    rows = [{"url": f"page-{number:02d}.html", "text": gold_text(number)} for number in range(40)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder, gold


def word_grams(text: str) -> set[tuple[str, ...]]:
    words = pages.WORD.findall(text.lower())
    return {tuple(words[k : k + pages.NGRAM]) for k in range(len(words) - pages.NGRAM + 1)}


def test_no_text_measured_on_stands_on_a_page_trained_on(tmp_path: Path) -> None:
    texts = {f"http://x/{number}": gold_text(number) for number in range(40)}
    shared = sentence(random.Random(-1))
    found = [Page(url, html_of(text + "\n\n" + shared), True) for url, text in texts.items()]
    gold = {url: f"{text}\n\n{shared}" for url, text in texts.items()}
    counts = pages.split(found, gold, 0.3, tmp_path)
    sets = json.loads((tmp_path / "held_out.json").read_text(encoding="utf-8"))
    train = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    seen = set().union(*(word_grams(json.loads(line)["text"]) for line in train))
    assert 4 < counts["pages_held_out"] < 24
    assert len(train) == counts["pages_to_train_on"] == 40 - counts["pages_held_out"]
    assert len(sets["gold"]) == len(sets["pages"]) == counts["pages_held_out"]
    assert all(not word_grams(paragraph) & seen for text in sets["gold"] for paragraph in text.split("\n\n"))
    assert all(shared not in text for text in sets["gold"])
    assert counts["paragraphs_seen_in_training_left_out"] == counts["pages_held_out"]
    assert sets["prose"] == sets["gold"]  # nothing but sentences


def test_pages_to_train_on_are_the_same_in_both_forms(tmp_path: Path, site: tuple[Path, Path]) -> None:
    found = pages.read_pages(site[0])
    pages.split(found, pages.read_gold(site[1]), 0.3, tmp_path / "parted")
    again = pages.read_pages(tmp_path / "parted" / "..")  # the site and the WARC file: the site's pages come first
    rows = [json.loads(line) for line in (tmp_path / "parted" / "train.jsonl").read_text().splitlines()]
    (tmp_path / "only").mkdir()
    (tmp_path / "parted" / "train.warc.gz").rename(tmp_path / "only" / "train.warc.gz")
    stored = pages.read_pages(tmp_path / "only")
    assert [(page.url, page.all_text()) for page in stored] == [(row["url"], row["text"]) for row in rows]
    assert all(MENU in row["text"] for row in rows)
    assert len(again) > len(found)


def test_jsonl_pages_are_html_or_text(tmp_path: Path) -> None:
    rows = [{"url": "http://x/a", "html": "<p>one <b>two</b></p>"}, {"url": "http://x/b", "html": "<p>three</p>"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"url": "http://x/c", "text": "<p>as it is</p>"}\nbroken\n', encoding="utf-8")
    found = {page.url: page.all_text().strip() for page in pages.read_pages(tmp_path)}
    assert found == {"http://x/a": "one two", "http://x/b": "three", "http://x/c": "<p>as it is</p>"}


def test_bad_requests_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gold.jsonl").write_text('{"address": 1}\n', encoding="utf-8")
    with pytest.raises(RequestError, match="no page in it"):
        pages.read_pages(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="gold text is JSON lines"):
        pages.read_gold(tmp_path / "gold.jsonl")
    with pytest.raises(RequestError, match="give more pages with gold text"):
        pages.split([Page("http://x/", "text", False)], {}, 0.5, tmp_path / "parted")
    with pytest.raises(RequestError, match="--pages needs --gold"):
        curation.gather(tmp_path / "out", tmp_path, None, 0.1)


def test_gold_of_the_library() -> None:
    import queue

    text = pages.module_text("queue")
    assert "Put an item into the queue." in text
    assert queue.__doc__ is not None
    assert text.startswith(queue.__doc__)
    assert "Decode a JSON document" in pages.module_text("json.decoder")
    assert pages.module_text("math") == pages.module_text("no.such.module") == pages.module_text("") == ""
    assert "context manager" in pages.topic_text("with")
    assert pages.topic_text("no such topic") == ""


@pytest.mark.parametrize(
    ("paragraph", "prose"),
    [
        ("The quick brown fox jumps over the lazy dog, and then it goes home again.", True),
        ("The quick brown fox jumps over the lazy dog, and then it goes home again", False),
        ("Too short.", False),
        ("x = f(1, 2) + g[3]; y = {4: 5}; z = h(i) if j else k; one two three four.", False),
        ("The quick brown fox jumps:\n    over the lazy dog and then it goes all the way home.", False),
    ],
)
def test_prose(paragraph: str, prose: bool) -> None:
    assert pages.is_prose(paragraph) is prose


def test_experiment_end_to_end(tmp_path: Path, site: tuple[Path, Path]) -> None:
    out = tmp_path / "out"
    asked = ["--out", str(out), "--pages", str(site[0]), "--gold", str(site[1]), "--held-out", "0.3"]
    curation.main([*asked, "--seeds", "2", "--workers", "1"], TINY)
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list(found["arms"]) == ["raw", "rules", "full"]
    assert found["arms"]["raw"]["documents"] == found["pages"]["pages_to_train_on"]
    assert found["arms"]["raw"]["bytes"] > found["arms"]["rules"]["bytes"] >= found["arms"]["full"]["bytes"] > 0
    for arm in found["arms"].values():
        assert arm["epochs"] == pytest.approx(TINY.steps * TINY.rows * TINY.context / arm["tokens"])
        assert all(
            len(values) == 2 and all(0 < value < 20 for value in values) for values in arm["bits_per_byte"].values()
        )
    assert_differences_add_up(found)
    charts = [ElementTree.parse(out / f"{name}.svg") for name in curation.SETS]
    assert all("full" in "".join(chart.getroot().itertext()) for chart in charts)
    assert "| prose |" in (out / "results.md").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*.json*")}
    curation.main([*asked, "--seeds", "2", "--workers", "1"], TINY)
    assert {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*.json*")} == before
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == found
    assert_trained_anew_under_another_plan(out)


def assert_differences_add_up(found: dict) -> None:
    for name in curation.SETS:
        mean = {arm: np.mean(one["bits_per_byte"][name]) for arm, one in found["arms"].items()}
        for pair, sets in found["differences"].items():
            b, a = pair.split(" - ")
            assert sets[name]["mean"] == pytest.approx(mean[b] - mean[a], abs=1e-9)
            assert sets[name]["seeds_low"] <= sets[name]["mean"] <= sets[name]["seeds_high"]


def assert_trained_anew_under_another_plan(out: Path) -> None:
    folder, parted = curation.model_folder(out, "raw", 1), out / "pages"
    tokens = out / "data" / "raw_tokens"
    before = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    curation.train(parted, tokens, folder, 1, replace(TINY, lr=1e-2))
    (tokens / "manifest.json").write_text("{}", encoding="utf-8")  # the same tokens, made anew: nothing to do
    written = (folder / "scores.json").stat().st_mtime_ns
    curation.train(parted, tokens, folder, 1, replace(TINY, lr=1e-2))
    assert (folder / "scores.json").stat().st_mtime_ns == written
    changed = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    curation.train(parted, tokens, folder, 1, TINY)
    again = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert changed != before
    assert again == before


@pytest.mark.parametrize("name", ["curation.yaml", "curation_web.yaml"])
def test_arms_differ_in_curation_alone(name: str) -> None:
    text = curation.RECIPE.with_name(name).read_text(encoding="utf-8").replace("PAGES", "/nowhere")
    recipe = build(*parse(text, name), name)
    arms = arms_of(recipe)
    assert arms == ["raw", "rules", "full"]
    assert recipe.stages["tokenizer"].inputs == ("raw",)
    for arm in arms:
        tokens = recipe.stages[f"{arm}_tokens"]
        assert isinstance(tokens, TokenizeStage)
        assert (set(tokens.inputs), tokens.held_out) == ({arm, "tokenizer"}, 0)
    rules, full = recipe.stages["rules"], recipe.stages["full"]
    assert isinstance(rules, CurateStage)
    assert isinstance(full, CurateStage)
    assert rules.sources == full.sources
    assert not rules.duplicates.near
    assert full.duplicates.near
    assert full.duplicates.substrings


def test_difference_of_arms() -> None:
    nats = np.array([[2.0, 4.0, 6.0], [2.2, 4.1, 6.3]])
    sizes = np.array([1.0, 2.0, 3.0])
    gap = figures.difference(nats, nats - sizes * math.log(2), sizes)  # one bit a byte better, whatever seed and text
    assert (gap.mean, gap.seeds_low, gap.seeds_high) == pytest.approx((-1, -1, -1))
    assert (gap.texts_low, gap.texts_high) == pytest.approx((-1, -1))
    other = figures.difference(nats, nats[::-1], sizes)
    assert other.mean == pytest.approx(0)
    assert other.seeds_low < 0 < other.seeds_high


def test_student_interval() -> None:
    assert figures.student([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))
    assert math.isnan(figures.student([1.0]))


def test_chart_is_an_image_with_all_lines() -> None:
    bands = [figures.Band(name, [0, 50, 100], np.array([[3.0, 2.0, 1.5], [3.1, 2.1, 1.4]])) for name in ("a", "b<")]
    root = ElementTree.fromstring(figures.band_chart(bands, title="t", x_label="x", y_label="y"))
    paths = [node for node in root.iter() if node.tag.endswith("path")]
    assert sum("Z" in path.get("d", "") for path in paths) == 2
    assert "b< 1.450" in [node.text for node in root.iter() if node.tag.endswith("text")]
