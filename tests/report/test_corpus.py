"""What the page says of curation against the artefacts it was made from."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from glassbox.report.artefacts import RunFacts, StageFacts
from glassbox.report.corpus import curation
from tests.report.curation_facts import agreement
from tests.report.reading import Page, page_of


def test_the_funnel_and_what_was_dropped(page: Page, example_run: Path) -> None:
    both, web, code = page.find("table", class_="funnel")
    assert "exact duplicates 73.8 % 3.8 MB 960,000 392 −4 near" in web
    assert "read as stored 17.8 MB 1,612 extract 100.0 %" in code
    assert "extract 100.0 % 23.0 MB 5.76 M 2,093 −8 urls 100.0 %" in both
    section = page.one("section", id="curation")
    assert "2,101 documents were read and 1,611 kept (76.7 %), 14.6 MB of 23.0 MB (63.4 %) of text." in section
    dropped = page.one("table", class_="dropped")
    assert "minhash_similarity 80 80,000 0.0205 to 0.93 0.8 near duplicates code 43, web 37" in dropped
    assert "0.31 0.65 language web 4" in dropped
    first = json.loads((example_run / "documents" / "samples.json").read_text())["kept"]["web"][0]["id"][:12]
    assert f"minhash_similarity: 0.93, threshold 0.8, like {first} glassbox explain looking-glass" in section
    assert f"glassbox explain looking-glass {first}" in section
    assert "holds held_out/h17" in section
    assert "And 2 more in documents/skipped.jsonl." in section
    assert "And 3 more in pages/crawl.json." in section


def test_steps_that_removed_nothing_are_pale(page: Page) -> None:
    still = page.find("tr", class_="still")
    assert sorted(row.split(" ")[0] for row in still) == ["decontaminate", "models", *["substrings"] * 3, *["urls"] * 2]


def test_what_was_cut_masked_found_and_sampled(page: Page) -> None:
    cut, masked = page.find("table", class_="tally")
    assert "clutter 2,207 2,207 0 edge lines 443 412 31" in cut
    assert "email 253 41 212" in masked
    assert "held_out 400 2 0.5 % 2 12 0 mmlu 14,042 0 0.0 % 0" in page.one("table", class_="contamination")
    hits = page.one("table", class_="hits")
    assert "and 3 more" in hits
    assert "<script>" in hits, "shown as text"
    assert "maths 204 1.0 MB 6.6 % 20.0 % 20.0 % × 2.86" in page.one("table", class_="balance")
    assert "1 document was dropped for it; 2 documents were rid of" in page.one("section", id="curation")


def test_a_sheet_waits_to_be_filled_in(page: Page, copy: Path) -> None:
    assert "Nobody has checked these verdicts yet. glassbox sheet looking-glass sheet.csv writes" in page.one(
        "section", id="curation"
    )
    (copy / "agreement-documents.json").write_text(json.dumps(agreement()))
    checked = page_of(copy)
    assert "agree on 86.0 % of 50 documents (95 % interval 73.8 % to 93.0 %)" in checked.one("section", id="curation")
    assert checked.one("table", class_="agreement").endswith("keep 22 4 drop 3 21")


def test_models_show_their_held_out_quality(page: Page) -> None:
    section = page.one("section", id="models")
    assert "Accuracy 0.913 Macro F1 0.890 Calibration error 0.021" in section
    assert "code 102 0.900 0.880 0.890 0.981 code word 0 · code word 1" in section
    assert "topics.jsonl 1,600 code 400, maths 400" in section
    assert "Held out 21,733 lines, 181 pages Sites 640 F1 0.942 AUC 0.971 Best threshold 0.45" in section
    assert "The model, threshold 0.5 0.934 0.951 0.942 Keeping every line 0.810 1.000 0.895" in section
    labels = [attrs["aria-label"] for tag, attrs, _ in page.elements if tag == "svg" and attrs["class"] == "chart"]
    for start in ("Calibration: share right from", "Confusions: 4 classes; 360 of 393", "By threshold: Precision from"):
        assert any(label.startswith(start) for label in labels), start


def test_a_synthesize_stage_has_a_funnel_too(tmp_path: Path) -> None:
    steps = [("asked", 64, 60_000), ("answered", 64, 60_000), ("verified", 30, 28_000), ("keep", 20, 18_000)]
    rows = [
        {"step": step, "source": "synthetic", "documents": documents, "bytes": size, "tokens": size // 4}
        for step, documents, size in steps
    ]
    (tmp_path / "funnel.json").write_text(json.dumps(rows))
    summary = {"problems": 16, "solved": 12, "replies": 64, "kept": 20, "generator": "base"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    recipe: Any = SimpleNamespace(name="r", stages={})
    facts = RunFacts(tmp_path.parent, recipe, [], [], [])
    settings: Any = SimpleNamespace(kind="synthesize")
    found = curation(facts, StageFacts("reasoning", settings, tmp_path, "finished"))
    assert found
    assert found.sentence == "64 solutions were asked for and 20 kept (31.2 %), 18.0 kB of 60.0 kB (30.0 %) of text."
    assert ("Solved at least once", "12 (75.0 %)") in found.facts
    assert [step.still for step in found.funnels[0].steps] == [False, True, False, False]
    assert found.skipped_total is None
    assert found.agreement is None
