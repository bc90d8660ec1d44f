"""Suspects: every text that normalisation changes is one."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from glassbox.tokens.normal_form import nfc_suspects, suspicious_characters
from tests.tokens.layouts import hard_texts


def suspect(text):
    data = np.frombuffer(text.encode(), np.uint8)
    return bool(nfc_suspects(data, np.array([0, len(data)], np.int64))[0])


@given(text=hard_texts | st.text())
def test_a_text_that_is_not_suspected_stays_as_it_is(text):
    normal = normalizers.NFC().normalize_str(text)
    assert suspect(text) or normal == text == unicodedata.normalize("NFC", text)


def test_every_pair_of_a_composition_is_suspected():
    characters = [chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000]
    apart = [unicodedata.normalize("NFD", character) for character in characters]
    changed = [text for text in apart if unicodedata.normalize("NFC", text) != text]
    assert len(changed) > 12_000
    assert all(map(suspect, changed))


def test_ordinary_text_is_not_suspected():
    for text in (
        "plain",
        "caf\u00e9",
        "\u00dc\u00df",
        "\u4f60\u597d\u3002",
        "\uac00\ub098",
        "\u0416",
        "\U0001f600",
        "",
    ):
        assert not suspect(text)
    assert (~suspicious_characters()).sum() > 140_000


def test_each_text_of_a_batch_is_judged_alone():
    data = np.frombuffer("xae\u0301b".encode(), np.uint8)
    assert nfc_suspects(data, np.array([1, 2, 5, 6, 6], np.int64)).tolist() == [False, True, False, False]
