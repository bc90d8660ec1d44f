"""The stage: what it leaves, its figures on real texts beside another implementation's, and bad labels."""

import gzip
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

from glassbox.curate.models import classify
from glassbox.curate.models.classifier_stage import hold_out, run
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.classify import ClassifierStage, LabelFile, Labels

SUBJECTS = (
    *("professional_law", "moral_scenarios", "elementary_mathematics"),
    *("nutrition", "marketing", "conceptual_physics"),
)


def rows_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def stage(tmp_path, rows, **changed):
    """Run the stage on (text, label) rows; its folder and quality."""
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    labels = Labels(files=(LabelFile(path=str(path), label="field:label"),))
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    run(ClassifierStage(kind="classifier", labels=labels, **changed), Inputs(), Workspace(folder))
    return folder, json.loads((folder / "quality.json").read_bytes())


def others_accuracy(rows, share=0.2):
    """scikit-learn's logistic regression on hashed 1- and 2-grams, same texts held out."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    texts, labels = [text for text, _ in rows], np.array([label for _, label in rows])
    names = sorted(set(labels))
    groups = np.array([names.index(label) for label in labels])
    out = hold_out([hashlib.sha256(one.encode()).hexdigest() for one in texts], groups, share)
    found = text.HashingVectorizer(ngram_range=(1, 2), n_features=1 << 16).transform(texts)
    model = linear.LogisticRegression(C=10, max_iter=50).fit(found[~out], labels[~out])
    return round(model.score(found[out], labels[out]), 4)


def once(rows):
    """Texts that have one label, once."""
    labels = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    return [(text, next(iter(found))) for text, found in labels.items() if len(found) == 1]


def test_subjects_of_questions(tmp_path, data):
    rows = once(
        ("\n".join([row["question"], *row["choices"]]), row["subject"])
        for row in rows_of(data / "mmlu" / "mmlu_test_a.jsonl.gz")
        if row["subject"] in SUBJECTS
    )
    folder, quality = stage(tmp_path, rows)
    assert quality["accuracy"] > 0.93
    assert quality["accuracy"] >= others_accuracy(rows)
    assert quality["macro_f1"] > 0.9
    assert min(one["auc"] for one in quality["classes"].values()) > 0.97
    assert "nutrition" not in quality["ngrams"]["professional_law"]
    assert {"defendant", "the defendant", "court"} & set(quality["ngrams"]["professional_law"])
    assert np.array(quality["confusion"]).sum() == quality["held_out"]
    assert quality["held_out"] + quality["trained_on"] == len(rows)
    scores = classify.load(folder).score(pa.array([rows[0][0]], pa.large_string()))
    assert scores.shape == (1, len(SUBJECTS))


def test_programming_languages(tmp_path, data):
    rows = once(
        (row["prompt"] + (row.get("canonical_solution") or ""), row["language"])
        for path in sorted((data / "mbxp").glob("*.jsonl.gz"))
        for row in rows_of(path)[:100]
    )
    _, quality = stage(tmp_path, rows)
    assert len(quality["names"]) == 12
    assert quality["accuracy"] >= max(0.99, others_accuracy(rows))


def test_english_prose_of_books_and_of_the_web(tmp_path, data):
    """A quality classifier's task in small: whole documents on one side, judged in pieces."""
    web = [row["text"] for row in rows_of(data / "c4_sample" / "c4_even.jsonl.gz")]
    with gzip.open(data / "wikipedia_articles" / "wiki_even.txt.gz", "rt", encoding="utf-8") as file:
        wiki = [line for line in file if line.strip()]
    _, quality = stage(
        tmp_path,
        [(one, "wiki") for text in wiki for one in pieces(text)]
        + [(one, "web") for text in web for one in pieces(text)],
    )
    assert quality["classes"]["wiki"]["auc"] > 0.97
    assert quality["calibration_error"] < 0.1


def pieces(text):
    return [text[i : i + 1000] for i in range(0, min(len(text), 30_000), 1000)]


def test_scores_have_errors_and_correlations(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        depth = int(rng.integers(0, 6))
        words = ["proof"] * depth + ["sale"] * (5 - depth) + [f"w{rng.integers(0, 50)}" for _ in range(10)]
        rows.append((" ".join(rng.permutation(words)) + f" {i}", {"depth": depth, "style": 5 - depth}))
    _, quality = stage(tmp_path, rows, task="scores")
    depth = quality["scores"]["depth"]
    assert depth["correlation"] > 0.9
    assert depth["mean_absolute_error"] < depth["error_of_the_mean"] / 2
    assert "proof" in quality["ngrams"]["depth"]
    assert "sale" in quality["ngrams"]["style"]


def test_the_result_does_not_depend_on_the_order_of_the_labels_for_what_is_held_out(tmp_path):
    rows = [(f"text number {i}", "ab"[i % 2]) for i in range(40)]
    _, one = stage(tmp_path, rows)
    _, two = stage(tmp_path, rows[::-1])
    assert one["training_set"] == two["training_set"]
    _, three = stage(tmp_path, rows[:-1])
    assert one["training_set"] != three["training_set"]


def test_every_class_is_held_out_and_learnt():
    hashes = [f"{i * 7919 % 101:03d}" for i in range(101)]
    groups = np.array([0] * 90 + [1] * 9 + [2] * 2)
    out = hold_out(hashes, groups, 0.2)
    assert np.bincount(groups[out]).tolist() == [18, 2, 1]
    assert max(h for h, o, g in zip(hashes, out, groups, strict=True) if o and g == 0) < min(
        h for h, o, g in zip(hashes, out, groups, strict=True) if not o and g == 0
    )
    assert not hold_out(["a"], np.array([0]), 0.5).any()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no labelled text"),
        ([("", "a")], "no labelled text .1 left out: no text"),
        ([("x", "a"), ("y", "a")], "all labelled texts are of class 'a'"),
        ([("x", "a"), ("y", "a"), ("z", "b")], "class 'b' has one labelled text"),
    ],
)
def test_too_few_labels_are_one_sentence(tmp_path, rows, sentence):
    with pytest.raises(RequestError, match=sentence):
        stage(tmp_path, rows)
    with pytest.raises(RequestError, match="has one labelled text"):
        stage(tmp_path, [("x", 1.0)], task="scores")
