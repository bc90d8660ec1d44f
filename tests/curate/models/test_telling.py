"""The n-grams that tell a class are those it was made of."""

import numpy as np
import pyarrow as pa
import pytest

from glassbox.curate.models.classify import train
from glassbox.curate.models.telling import SHOWN, telling_ngrams
from glassbox.recipe.classify import ClassifierStage, LabelFile, Labels

NAMES = ("code", "poem", "天气")
MARKS = {"code": "Return  x == {y}", "poem": "o moon, o night", "天气": "今天天气晴朗"}


@pytest.mark.parametrize("dim", [2, 32])
def test_planted_ngrams_are_found_as_they_are_read(dim):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    texts = pa.array(
        [" ".join([*rng.choice(["the", "a", "to", "in"], 8), MARKS[NAMES[c]], "end"]) for c in truth], pa.large_string()
    )
    settings = ClassifierStage(
        kind="classifier", labels=Labels(files=(LabelFile(path="x"),)), dim=dim, buckets=1 << 14, epochs=8
    )
    has = np.eye(3, dtype=np.float32)[truth]
    found = telling_ngrams(train(texts, has, NAMES, settings, 0), texts, has == 1)
    assert {"return", "return x", "=="} <= set(found["code"])
    assert {"o", "moon", "o moon"} <= set(found["poem"])
    assert {"天", "天气", "晴"} <= set(found["天气"])
    assert all(len(ngrams) <= SHOWN for ngrams in found.values())
    assert not set(found["code"]) & set(found["poem"])


def test_a_class_without_texts_has_none():
    settings = ClassifierStage(kind="classifier", labels=Labels(files=(LabelFile(path="x"),)), buckets=64)
    texts = pa.array(["a b", "c d"], pa.large_string())
    model = train(texts, np.eye(2, dtype=np.float32), ("x", "y"), settings, 0)
    assert telling_ngrams(model, texts, np.zeros((2, 2), np.bool_)) == {"x": [], "y": []}
