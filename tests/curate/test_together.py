"""What is decided between documents, through the whole stage: who stays, what is cut, how often a document is used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassbox.curate.models import classifier_stage
from glassbox.curate.together import with_signs, without
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.classify import ClassifierStage
from tests.curate.test_stage import curate, prose, rows, write_jsonl

WORDS = {
    "sea": ["wave", "ship", "harbour", "fish", "storm", "sail", "tide", "anchor"],
    "town": ["street", "house", "tram", "shop", "mayor", "roof"],
}


def source(path: Path, **settings: Any) -> dict[str, Any]:
    return {"name": path.stem, "format": "jsonl", "path": str(path), **settings}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def topics(tmp_path: Path) -> Artefact:
    """A classifier that tells texts about the sea from texts about the town."""
    draw = np.random.default_rng(0)
    labelled = [{"text": " ".join(draw.choice(WORDS[label], 30)), "topic": label} for label in WORDS for _ in range(60)]
    write_rows(tmp_path / "labels.jsonl", labelled)
    labels = {"files": [{"path": str(tmp_path / "labels.jsonl"), "label": "field:topic"}]}
    (tmp_path / "topics").mkdir()
    classifier_stage.run(ClassifierStage(kind="classifier", labels=labels), Inputs(), Workspace(tmp_path / "topics"))
    return Artefact("topics", "classifier", tmp_path / "topics")


def about(topic: str, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS[topic], 60)) + f" number {seed}"


def test_the_longest_or_the_best_copy_stays_when_told_so(tmp_path: Path, topics: Artefact) -> None:
    write_jsonl(tmp_path / "a.jsonl", [prose(1, 30), prose(1, 30) + "\nAnd a line more of it.", prose(2, 30)])
    for prefer, length in (("longest", max), ((), None)):
        out = curate(tmp_path / f"out-{length}", sources=[source(tmp_path / "a.jsonl")], duplicates={"prefer": prefer})
        kept = {row["text"] for row in rows(out, "documents")}
        assert len(kept) == 2
        assert length is None or prose(1, 30) + "\nAnd a line more of it." in kept
    texts = [prose(1, 30) + "\n" + " ".join([word] * 4) for word in ("street", "ship")]
    write_jsonl(tmp_path / "b.jsonl", texts)
    used = {"models": [{"stage": "topics", "best": "sea"}], "duplicates": {"prefer": "quality"}}
    out = curate(tmp_path / "best", Inputs((topics,)), sources=[source(tmp_path / "b.jsonl")], **used)
    assert [row["text"] for row in rows(out, "documents")] == [texts[1]]
    assert rows(out, "documents")[0]["duplicates"] == 1


def test_one_document_an_address_over_all_sources(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": prose(n), "url": f"http://x.org/{n}?utm_source=q"} for n in range(3)])
    write_rows(tmp_path / "b.jsonl", [{"text": prose(n + 50), "url": f"https://X.org/{n}/#top"} for n in range(5)])
    sources = [source(tmp_path / f"{name}.jsonl", urls={"once": True}) for name in "ab"]
    out = curate(tmp_path / "out", sources=sources)
    assert sorted(row["url"] for row in rows(out, "documents") if row["source"] == "b") == [
        "https://X.org/3/#top",
        "https://X.org/4/#top",
    ]
    gone = rows(out, "dropped")
    assert {(row["stage"], row["rule"]) for row in gone} == {("urls_once", "same_address")}
    first = {row["url"]: row["id"] for row in rows(out, "documents")}
    assert {row["other"] for row in gone} == {first[f"http://x.org/{n}?utm_source=q"] for n in range(3)}


def test_a_repeated_passage_is_cut_from_all_but_the_first(tmp_path: Path) -> None:
    passage = prose(7, 8)
    texts = [prose(n, 12) + "\n" + passage + "\n" + prose(n + 100, 4) for n in range(4)]
    write_jsonl(tmp_path / "a.jsonl", [*texts, passage])
    settings = {"near": None, "substrings": {"words": 30, "min_words": 20}}
    out = curate(tmp_path / "out", sources=[source(tmp_path / "a.jsonl")], duplicates=settings)
    kept, gone = rows(out, "documents"), rows(out, "dropped")
    middle = " ".join(passage.split()[20:40])
    assert sum(middle in " ".join(row["text"].split()) for row in kept) == 1
    assert all(row["rule"] == "words_left" and row["text"] == "" for row in gone)
    for row in kept:
        cuts = [cut for cut in row["cuts"] if cut["step"] == "substrings"]
        whole = next(text for text in [*texts, passage] if text.startswith(row["text"][:40]))
        assert len(row["text"]) + sum(len(cut["text"]) for cut in cuts) == len(whole)
        assert row["n_chars"] == len(row["text"])
    funnel = {row["step"]: row for row in json.loads((out / "funnel.json").read_text())}
    assert funnel["exact_duplicates"]["bytes"] == sum(len(text) for text in [*texts, passage])
    assert funnel["substrings"]["bytes"] == sum(len(row["text"]) for row in kept)


def test_matches_with_an_evaluation_are_cut_or_drop_the_document(tmp_path: Path) -> None:
    question = "A farmer has 17 goats and buys 4 more goats every week for the next 12 weeks until the winter comes."
    write_rows(tmp_path / "set.jsonl", [{"question": question}, {"question": "How much is it?"}])
    texts = [prose(n, 20) for n in range(4)]
    texts[2] = texts[2] + "\n" + question + "\n" + prose(60, 20)
    write_jsonl(tmp_path / "a.jsonl", texts)
    given = {"sets": [{"name": "goats", "path": str(tmp_path / "set.jsonl")}]}
    dropped = curate(tmp_path / "drop", sources=[source(tmp_path / "a.jsonl")], decontaminate=given)
    (gone,) = rows(dropped, "dropped")
    assert (gone["text"], gone["rule"], gone["value"]) == (texts[2], "evaluation_ngrams", 1.0)
    assert gone["other"].startswith("goats/")
    report = json.loads((dropped / "contamination.json").read_text())
    assert (report["documents_dropped"], report["documents_cut"]) == (1, 0)
    assert (report["sets"][0]["items"], report["sets"][0]["too_short"]) == (2, 1)
    cut = curate(tmp_path / "cut", sources=[source(tmp_path / "a.jsonl")], decontaminate={**given, "cut": 50})
    assert rows(cut, "dropped") == []
    (touched,) = (row for row in rows(cut, "documents") if row["cuts"])
    assert question not in touched["text"]
    assert touched["text"].startswith(texts[2][:200])
    assert touched["text"].endswith(texts[2][-200:])
    assert json.loads((cut / "contamination.json").read_text())["documents_cut"] == 1


def test_models_drop_keep_and_sample(tmp_path: Path, topics: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ids, by which documents are sampled, follow from the path as it is written.
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", [about("sea", n) for n in range(240)] + [about("town", n) for n in range(160)])
    given = {"sources": [source(Path("a.jsonl"))], "duplicates": {"near": None}}
    inputs = Inputs((topics,))
    dropped = curate(tmp_path / "drop", inputs, **given, models=[{"stage": "topics", "drop": "town"}])
    assert (len(rows(dropped, "documents")), len(rows(dropped, "dropped"))) == (240, 160)
    assert {(row["stage"], row["rule"]) for row in rows(dropped, "dropped")} == {("models", "topics.is_town")}
    scores = [dict(row["scores"]) for row in rows(dropped, "documents")]
    assert all(score["topics.sea"] > 0.5 and sum(score.values()) == pytest.approx(1) for score in scores)
    share = curate(tmp_path / "share", inputs, **given, models=[{"stage": "topics", "best": "sea", "share": 0.3}])
    kept = rows(share, "documents")
    assert sum(len(row["text"]) for row in kept) == pytest.approx(0.3 * 400 * len(about("sea", 1)), rel=0.1)
    assert not [row for row in kept if "street" in row["text"]]
    sampling = {"category": "topics", "targets": {"town": 0.75}, "most": 8}
    sampled = curate(tmp_path / "sampled", inputs, **given, models=[{"stage": "topics"}], sampling=sampling)
    used = dict.fromkeys(("sea", "town"), 0)
    for row in rows(sampled, "documents"):
        used[row["category"]] += row["copies"] * len(row["text"])
    assert used["town"] / sum(used.values()) == pytest.approx(0.75, abs=0.06)
    assert {row["rule"] for row in rows(sampled, "dropped")} == {"down_sampled"}
    about_it = json.loads((sampled / "sampling.json").read_text())
    assert about_it["town"]["bytes_used"] == used["town"]
    corrected = {name: row["bytes_corrected"] for name, row in about_it.items()}
    assert sum(corrected.values()) == pytest.approx(sum(row["bytes"] for row in about_it.values()))
    with pytest.raises(RequestError, match="classifier 'topics' has no class 'lake'; it knows sea, town"):
        curate(tmp_path / "wrong", inputs, **given, models=[{"stage": "topics", "keep": {"lake": 0.1}}])


def test_personal_data_is_masked_and_counted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [prose(n) + f"\nWrite to person{n}@firm.net now." for n in range(3)])
    out = curate(tmp_path / "out", sources=[source(tmp_path / "a.jsonl", clean={"mask": ["email"]})])
    kept = rows(out, "documents")
    assert all("Write to |||EMAIL_ADDRESS||| now." in row["text"] for row in kept)
    assert [dict(row["masked"]) for row in kept] == [{"email": 1}] * 3
    assert json.loads((out / "samples.json").read_text())["masked"] == {"a": {"email": 3}}


def test_bad_words_drop_a_document(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [prose(1), prose(2) + " A frobnicated word."])
    (tmp_path / "list.txt").write_text("frobnicated\n")
    for number, words in enumerate((str(tmp_path / "list.txt"), "frobnicated")):
        given = source(tmp_path / "a.jsonl", rules="bad_words", bad_words=words)
        out = curate(tmp_path / f"out-{number}", sources=[given])
        assert [row["text"] for row in rows(out, "dropped")] == [prose(2) + " A frobnicated word."]


def test_signs_go_with_the_words_they_stand_at() -> None:
    text = 'He said: ("some words").  5 more, $7.'
    stretch = text.index("some"), text.index("words") + len("words")
    assert text[slice(*with_signs(text, *stretch))] == '("some words").'
    assert text[slice(*with_signs(text, text.index("5"), text.index("more") + 4))] == "5 more,"
    assert text[slice(*with_signs(text, text.index("7"), text.index("7") + 1))] == "$7."
    assert with_signs("a b", 0, 1) == (0, 1)


def test_stretches_are_taken_out_whatever_their_order() -> None:
    text = "0123456789"
    assert without(text, [(7, 9, "x"), (1, 3, "x")]) == "034569"
    assert without(text, [(1, 5, "x"), (3, 7, "y"), (4, 5, "z")]) == "0789"
    assert without(text, []) == text
