"""Content keys are hashes of plain forms made in plain Python; of equal ones the earliest in order stays."""

import hashlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.repeats.exact import content_keys, exact_copies
from tests.curate.alike import MEMORY, column, shuffled

TRICKY = "aÀé Ǖ\u0301\u0327\u0323가각漢İΣς.,$+-\n\u3000ǰ😀\u0345\u0f71\u0f72\u2028\x1fﬁÅ"


def spaces(text: str) -> str:
    return " ".join(text.split())


def normalised(text: str) -> str:
    kept = "".join(sign for sign in text if unicodedata.category(sign)[0] not in "PS")
    low = "".join(sign.lower() for sign in unicodedata.normalize("NFD", kept))
    return spaces(low) or spaces(text)


def key(plain: str) -> list[int]:
    return np.frombuffer(hashlib.blake2b(plain.encode(), digest_size=16).digest(), np.uint64).tolist()


@settings(deadline=None)
@given(st.lists(st.text(alphabet=TRICKY, max_size=30) | st.text(max_size=20), max_size=4))
def test_keys_are_hashes_of_the_plain_form(texts: list[str]) -> None:
    assert content_keys(column(texts), "spaces").tolist() == [key(spaces(text)) for text in texts]
    assert content_keys(column(texts), "normalised").tolist() == [key(normalised(text)) for text in texts]


def test_keys_do_not_depend_on_the_batch() -> None:
    texts = ["a b\nc", "x", " a  b c\n", "A, b – c!", "X", "", "!!!", "?!?"]
    for how in ("spaces", "normalised"):
        whole = content_keys(column(texts), how)
        sliced = np.concatenate([content_keys(column(["?", *texts])[k + 1 : k + 2], how) for k in range(len(texts))])
        assert np.array_equal(whole, sliced)
    equal = content_keys(column(texts), "normalised")
    assert (equal[0] == equal[3]).all()
    assert (equal[1] == equal[4]).all()
    # Texts of symbols alone are not all the same.
    assert len(np.unique(equal[5:], axis=0)) == 3


def test_a_long_run_of_combining_marks_takes_no_quadratic_time() -> None:
    text = "a" + "\u0327\u0301\u0323" * 100_000
    marks = "".join(sorted(text[1:], key=unicodedata.combining))
    assert content_keys(column([text]), "normalised").tolist() == [key("a" + marks)]


@pytest.mark.parametrize("memory", [1 << 10, MEMORY])
def test_the_earliest_in_order_stays_however_documents_are_numbered(tmp_path: Path, memory: int) -> None:
    draw = np.random.default_rng(0)
    keys = np.repeat(draw.integers(0, 2**64, (300, 2), np.uint64), 4, axis=0)[draw.permutation(1200)]
    order = draw.permutation(1200)[:900]
    first = exact_copies(keys, order, tmp_path, memory)
    seen: dict[tuple[int, int], int] = {}
    for document in order.tolist():
        assert first[document] == seen.setdefault(tuple(keys[document].tolist()), document)
    out = np.setdiff1d(np.arange(1200), order)
    assert (first[out] == out).all()
    old, new = shuffled(1200)
    again = exact_copies(keys[old], new[order], tmp_path, memory)
    assert np.array_equal(old[again[new]], first)
    assert not list(tmp_path.iterdir())
