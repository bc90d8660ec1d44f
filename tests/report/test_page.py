"""The page against the artefacts it was made from, read with an HTML parser of the standard library."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from glassbox.errors import GlassboxError, RequestError
from glassbox.report.format import duration, size
from glassbox.report.page import write_report
from tests.report.conftest import KINDS, MODELS, broken_off, build_run, edit_json
from tests.report.curation_facts import HOSTILE
from tests.report.reading import Page, page_of


def test_every_section_is_there(page: Page) -> None:
    ids = {attrs["id"] for tag, attrs, _ in page.elements if tag == "section"}
    assert ids == {"stages", "curation", "models", "tokens", "training", "scores", "conversations"}
    anchors = {
        attrs["href"][1:] for tag, attrs, _ in page.elements if tag == "a" and attrs.get("href", "").startswith("#")
    }
    assert anchors <= {attrs["id"] for _, attrs, _ in page.elements if "id" in attrs}


def test_the_head_shows_scores_with_intervals(page: Page, example_run: Path) -> None:
    rows = json.loads((example_run / "scores" / "scores.json").read_text())["rows"]
    headline = " ".join(page.find("div", class_="headline"))
    for model in MODELS:
        (row,) = (r for r in rows if r["model"] == model and r["metric"] == "exact_match" and "kind" not in r)
        assert f"{model} {row['value']:.1%}".replace("%", " %") in headline
        assert f"{row['low'] * 100:.1f} to {row['high'] * 100:.1f}" in headline
    assert "+ 24.0 on sft" in headline, "rl was trained from sft: its gain is over sft, not over dpo"
    assert "bigram 2.204" in headline
    assert "xz 1.980" in headline
    assert "All 12 stages finished" in page.one("main", id="main")


def test_the_graph_has_every_stage_and_every_edge(page: Page, example_run: Path) -> None:
    (label,) = (
        attrs["aria-label"] for tag, attrs, _ in page.elements if tag == "svg" and attrs.get("class") == "graph"
    )
    assert "scores (evaluate, finished) from base, sft, dpo, rl, problems, tokens" in label
    assert len(page.find("path", class_="edge")) == 4 + 2 + 3 + 1 + 2 + 2 + 2 + 6
    prints = page.find("text", class_="print")
    manifests = [json.loads(path.read_text()) for path in example_run.glob("*/manifest.json")]
    assert sorted(prints) == sorted(manifest["fingerprint"][:8] for manifest in manifests)


def test_costs_are_the_ledgers(page: Page, example_run: Path) -> None:
    table = page.one("table", id="costs").replace(" ", "")
    records = [json.loads(line) for line in (example_run / "ledger.jsonl").read_text().splitlines()]
    for record in records:
        if record["event"] == "finished":
            cells = duration(record["seconds"]), duration(record["cpu_seconds"]), size(record["peak_memory_bytes"])
            assert "".join([record["stage"], *cells]).replace(" ", "") in table


def test_tokens_by_source(page: Page) -> None:
    section = page.one("section", id="tokens")
    assert "Vocabulary 4,096" in section
    assert "web 3.37 356 1.01 M" in section


def test_training_curves_and_figures(page: Page) -> None:
    section = page.one("section", id="training")
    assert "Parameters 2.4 M" in section
    labels = [attrs["aria-label"] for tag, attrs, _ in page.elements if tag == "svg" and attrs["class"] == "chart"]
    for start in (
        "Loss: loss from",
        "Learning rate: learning rate from 0.00015 at step 1 to 2.5e-5 at step 400",
        "Gradient norm:",
        "Throughput:",
        "Model FLOP utilisation:",
        "Held-out bits per byte: web from 2.33 at step 50 to 1.431 at step 400; code",
        "Expert load:",
        "Loss ahead:",
        "Drafts accepted: web from 0.5",
        "Share of tokens per expert at the end: 4 layers, 16 experts",
        "Reward:",
        "Groups without signal:",
        "Completion length:",
        "Margin:",
        "Preference accuracy:",
        "Implicit rewards: chosen from",
    ):
        assert any(label.startswith(start) for label in labels), start
    assert page.find("text", class_="note")[:2] == ["broad", "anneal"]
    assert "logprob chosen" in section, "a metric that no panel asks for is among the other curves"


def test_scores_by_kind_and_source_with_their_protocol(page: Page) -> None:
    chat, plain = page.find("table", class_="accuracy")
    assert "All kinds 4.0 % 2.1 to 5.9 57.5 %" in chat
    assert "All kinds 22.0 %" in plain
    assert all(kind in chat for kind in KINDS)
    bits = page.one("table", class_="bits")
    assert "web 1.412 1.392 to 1.432" in bits
    assert bits.count("2.204") == 1
    protocols = [text for text in page.find("p", class_="aside") if text.startswith("Protocol:")]
    assert "chat format" in protocols[0]
    assert "running text" in protocols[1]
    assert "held-out documents" in protocols[2]
    assert "temperature" in protocols[0]
    assert "temperature" not in protocols[2]
    drafted = page.one("table", class_="acceptance")
    assert "web 62.0 % 60.0 to 64.0" in drafted
    assert "all, block 2 41.0 %" in drafted
    assert protocols[3].startswith("Protocol: the same text, drafted")


def test_conversations_stand_side_by_side(page: Page) -> None:
    talks = page.find("article", class_="talk")
    assert len(talks) == 4
    for talk in talks:
        assert [talk.index(word) for word in ("base ✗", "sft ✗", "dpo ✓", "rl ✓")] == sorted(
            talk.index(word) for word in ("base ✗", "sft ✗", "dpo ✓", "rl ✓")
        )
    assert len(page.find("div", class_="right")) == 4 * 2 * 2


def test_hostile_text_stays_text(page: Page, example_run: Path) -> None:
    assert not [tag for tag, _, _ in page.elements if tag in ("script", "img", "iframe", "object", "link", "base")]
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]
    html = (example_run / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in html
    assert "\x00" not in html
    shown = HOSTILE.split("&")[0].strip()
    assert sum(shown in text for text in page.find("pre")) >= 3


def test_nothing_is_loaded_from_anywhere(page: Page, example_run: Path) -> None:
    html = (example_run / "report.html").read_text(encoding="utf-8")
    assert not [attrs for _, attrs, _ in page.elements if {"src", "srcset", "data", "xlink:href"} & attrs.keys()]
    assert all(attrs["href"].startswith("#") for _, attrs, _ in page.elements if "href" in attrs)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)
    (policy,) = (a["content"] for _, a, _ in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_same_artefacts_same_bytes(example_run: Path, copy: Path) -> None:
    first = write_report(example_run).read_bytes()
    assert write_report(example_run).read_bytes() == first
    assert write_report(copy).read_bytes() == first, "the page does not depend on where the run lies"


@pytest.mark.parametrize(
    "last", ["pages", "problems", "topics", "documents", "tokenizer", "tokens", "base", "sft", "rl"]
)
def test_a_run_in_any_state_has_a_page(tmp_path: Path, last: str) -> None:
    page = page_of(build_run(tmp_path / "run", last=last))
    assert "Not finished: scores (waiting)." in page.one("section", id="scores")
    assert "of 12 stages finished" in page.one("main", id="main")
    if last == "pages":
        assert "Not finished: base (waiting), sft (waiting)" in page.one("section", id="training")


def test_a_stage_that_broke_off_shows_what_it_did(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(GlassboxError):
        build_run(run, functions={"pretrain": broken_off})
    page = page_of(run)
    section = page.one("section", id="training")
    assert "base (failed)" in section
    assert "Steps so far 30" in section
    assert "base/metrics.jsonl: 1 line is torn" in page.one("div", class_="notice")
    build_run(run)
    after = page_of(run)
    assert "1 attempt broken off" in after.one("section", id="stages")
    assert not after.find("div", class_="notice")


def test_damaged_files_are_named_on_the_page(copy: Path) -> None:
    (copy / "documents" / "funnel.json").write_text("{")
    (copy / "documents" / "dropped" / "dropped-000000.parquet").write_bytes(b"PAR1 not really")
    (copy / "sft" / "manifest.json").write_text("")
    (copy / "base" / "summary.json").write_bytes(b"\xff\xfe")
    ledger = copy / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"pages"', '"pagez"', 1))
    page = page_of(copy)
    notes = page.one("div", class_="notice")
    for name in ("funnel.json", "sft/manifest.json", "base/summary.json", "ledger.jsonl"):
        assert name in notes, name
    assert "(damaged)" in page.one("section", id="training")
    assert str(copy) not in notes


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "list"])
@pytest.mark.parametrize("half", [0, 1])
def test_no_damage_breaks_the_page(copy: Path, damage: str, half: int) -> None:
    paths = sorted(path for path in copy.rglob("*") if path.suffix in (".json", ".jsonl", ".parquet"))
    assert len(paths) > 30
    for path in paths[half::2]:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        if damage == "flip":
            data[middle] = 0xFF
        path.write_bytes({"cut": data[:middle], "flip": data, "empty": b"", "list": b"[1]\n"}[damage])
    assert page_of(copy).one("h1") == "looking-glass"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("documents/funnel.json", lambda rows: [*rows, 3, {}, {"step": None, "documents": "many"}]),
        ("documents/samples.json", lambda value: [value["kept"], None, 4]),
        ("documents/samples.json", lambda value: {"lines_cut": {"web": [1]}, "masked": {"web": {"ip": "x", "key": 0}}}),
        ("documents/contamination.json", lambda value: {"sets": [3, {}, {"name": 4, "items": -2, "found": {"h": 1}}]}),
        ("documents/contamination.json", lambda value: {"problems_found": ["h17"], "problems": 400}),
        ("documents/sampling.json", lambda value: {"maths": {"bytes": 0}, "code": None}),
        ("documents/sampling.json", lambda value: {"maths": {"bytes": 10, "bytes_used": "x"}, "code": {"bytes": -3}}),
        ("topics/quality.json", lambda value: {**value, "confusion": [[1, 2]], "calibration": 7, "ngrams": None}),
        ("topics/quality.json", lambda value: {**value, "names": "x", "classes": {"a": 3}, "texts": {"f": None}}),
        ("topics/quality.json", lambda value: {"confusion": [[-1, 0, 0, 0]] * 4, "names": ["<b>", "", None, 4]}),
        ("lines/quality.json", lambda value: {"by_threshold": {"x": 1, "2": {"f1": 5}}, "model": 3, "held_out": []}),
        ("base/summary.json", lambda value: {"parameters": 12, "expert_load": [[0.5, "x"]]}),
        ("base/summary.json", lambda value: {"expert_load": [[0, 0], [0.5, 0.5]]}),
        ("tokenizer/report.json", lambda value: []),
        ("tokens/tokens.json", lambda value: {"sources": {"web": None, "code": {"train": {}}}}),
        ("scores/scores.json", lambda value: {**value, "baselines": [], "protocol": "greedy"}),
        (
            "scores/scores.json",
            lambda value: {**value, "rows": [{"model": "rl", "metric": "exact_match", "value": 0.0}]},
        ),
        ("scores/scores.json", lambda value: {**value, "baselines": {"bigram": 2.5}}),
        ("pages/crawl.json", lambda value: {"failed": "none"}),
    ],
)
def test_unexpected_shapes_do_not_break_the_page(copy: Path, file: str, change: Any) -> None:
    edit_json(copy / file, change)
    assert page_of(copy).one("h1") == "looking-glass"


def test_values_that_are_not_finite_are_counted(copy: Path) -> None:
    with (copy / "rl" / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 61, "reward": NaN, "loss": Infinity}\n{"step": 62, "reward": 0.5, "note": "x", "flag": true}\n'
        )
    assert "2 values of the metrics stream were not finite" in page_of(copy).one("section", id="training")


def test_changed_code_and_remade_inputs_show(copy: Path) -> None:
    edit_json(copy / "rl" / "manifest.json", lambda manifest: {**manifest, "code": "0.0.1+old"})
    edit_json(copy / "base" / "manifest.json", lambda manifest: {**manifest, "fingerprint": "f" * 64})
    main = page_of(copy).one("main", id="main")
    assert "2 versions of the code made this run" in main
    assert "0.0.1+old (rl)" in main
    assert "made from earlier inputs: sft, scores" in main


def test_no_run_here(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no run here"):
        write_report(tmp_path)
