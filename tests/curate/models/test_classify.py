"""The network: what it learns, that it is the same whatever the batches, and what it does with odd input."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.models import classify
from glassbox.curate.models.classify import load, save, train
from glassbox.errors import Interrupted, RequestError
from glassbox.recipe.classify import ClassifierStage, LabelFile, Labels

WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not")
THEMES = {
    "animals": ("cat", "dog", "horse", "bird"),
    "food": ("bread", "soup", "rice", "cheese"),
    "天气": "天气晴朗下雨刮风",
}


def settings_of(**changed):
    return ClassifierStage(
        **{"kind": "classifier", "labels": Labels(files=(LabelFile(path="x"),)), "buckets": 1 << 12, **changed}
    )


def themed(n, seed, themes=tuple(THEMES)):
    """Texts of common words with some of a theme's, and each one's theme."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(themes), n)
    texts = [
        " ".join([*rng.choice(WORDS, 20), *rng.choice(list(THEMES[themes[c]]), 2), *rng.choice(WORDS, 5)])
        for c in truth
    ]
    return pa.array(texts, pa.large_string()), truth


@pytest.fixture(scope="module")
def trained():
    texts, truth = themed(600, 1)
    return train(texts, np.eye(3, dtype=np.float32)[truth], tuple(THEMES), settings_of(), 0)


def test_it_learns_themes_in_words_and_in_chinese(trained):
    texts, truth = themed(300, 2)
    scores = trained.score(texts)
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(1), 1, atol=1e-5)
    assert (scores.argmax(1) == truth).mean() > 0.98


def test_more_classes_than_dimensions_are_learnt_as_well():
    texts, truth = themed(600, 1)
    narrow = train(texts, np.eye(3, dtype=np.float32)[truth], tuple(THEMES), settings_of(dim=2, epochs=10), 0)
    assert narrow.output.shape == (3, 2)
    others, expected = themed(300, 2)
    assert (narrow.score(others).argmax(1) == expected).mean() > 0.9
    scores = narrow.embeddings @ narrow.output.T
    assert np.allclose(scores[:, 1], narrow.column(1), atol=1e-6)


def test_the_same_texts_and_seed_give_the_same_bytes():
    texts, truth = themed(100, 1)
    goals = np.eye(3, dtype=np.float32)[truth]
    first, second = (train(texts, goals, tuple(THEMES), settings_of(), 5) for _ in range(2))
    other = train(texts, goals, tuple(THEMES), settings_of(), 6)
    assert first.embeddings.tobytes() == second.embeddings.tobytes()
    assert first.embeddings.tobytes() != other.embeddings.tobytes()


def test_training_in_stretches_changes_nothing_and_can_be_stopped(monkeypatch):
    texts, truth = themed(100, 1)
    goals = np.eye(3, dtype=np.float32)[truth]
    whole = train(texts, goals, tuple(THEMES), settings_of(epochs=2), 5)
    monkeypatch.setattr(classify, "STRETCH", 30)
    seen = []
    parts = train(texts, goals, tuple(THEMES), settings_of(epochs=2), 5, seen.append)
    assert parts.embeddings.tobytes() == whole.embeddings.tobytes()
    assert seen == [0, 30, 60, 90, 100, 130, 160, 190]

    def stop(done):
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        train(texts, goals, tuple(THEMES), settings_of(), 5, stop)


@pytest.mark.parametrize("dim", [2, 64])
def test_scores_do_not_depend_on_the_batch(dim):
    texts, truth = themed(60, 3)
    model = train(texts, np.eye(3, dtype=np.float32)[truth], tuple(THEMES), settings_of(dim=dim), 0)
    together = model.score(texts)
    alone = np.concatenate([model.score(texts.slice(i, 1)) for i in range(len(texts))])
    assert together.tobytes() == alone.tobytes()


def test_scores_are_regressed_on_the_scale_of_the_labels():
    texts, truth = themed(800, 4, ("animals", "food"))
    rng = np.random.default_rng(0)
    depth = np.where(truth == 0, 4.0, 1.0) + rng.normal(0, 0.3, 800)
    style = np.where(rng.random(800) < 0.5, np.nan, 100.0 * truth)
    goals = np.stack([depth, style], 1).astype(np.float32)
    model = train(texts, goals, ("depth", "style"), settings_of(task="scores"), 0)
    others, expected = themed(200, 5, ("animals", "food"))
    found = model.score(others)
    assert np.abs(found[:, 0] - np.where(expected == 0, 4.0, 1.0)).mean() < 0.4
    assert np.abs(found[:, 1] - 100.0 * expected).mean() < 15


def test_a_saved_classifier_is_the_same_when_loaded(trained, tmp_path):
    save(trained, tmp_path)
    again = load(tmp_path)
    assert (again.names, again.task, again.ngram) == (trained.names, "classes", 2)
    texts, _ = themed(50, 6)
    assert again.score(texts).tobytes() == trained.score(texts).tobytes()


@pytest.mark.parametrize("damage", ["missing", "cut", "pickle", "facts"])
def test_a_damaged_folder_is_one_sentence(trained, tmp_path, damage):
    save(trained, tmp_path)
    if damage == "missing":
        (tmp_path / "output.npz").unlink()
    if damage == "cut":
        (tmp_path / "embeddings.npy").write_bytes((tmp_path / "embeddings.npy").read_bytes()[:1000])
    if damage == "pickle":
        np.save(tmp_path / "embeddings.npy", np.array([{}], object))
    if damage == "facts":
        (tmp_path / "classifier.json").write_text(json.dumps({"names": []}))
    with pytest.raises(RequestError, match="no readable classifier"):
        load(tmp_path)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text_has_probabilities(trained, texts):
    scores = trained.score(pa.array(texts, pa.large_string()))
    assert scores.shape == (len(texts), 3)
    assert np.isfinite(scores).all()


def test_a_slice_and_a_huge_text_are_scored(trained):
    texts, _ = themed(10, 7)
    assert trained.score(texts.slice(3, 4)).tobytes() == trained.score(texts)[3:7].tobytes()
    huge = pa.array(["cat dog " * 2_000_000], pa.large_string())
    assert trained.score(huge).argmax() == 0
