"""Cutting batches: nothing lost, pairs whole, only padding trimmed."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassbox.train.rows import labelled_tokens, micro_batches, real_tokens, row_count, to_rows

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FakeBatch:
    ids: np.ndarray
    labels: np.ndarray


@given(st.integers(1, 9), st.integers(2, 100), st.integers(1, 12), st.integers(0, 2**31))
def test_micro_batches_keep_every_label_and_its_past(rows, width, sequences, seed):
    random = np.random.default_rng(seed)
    ids = random.integers(1, 50, (rows, width))
    labels = np.where(random.random((rows, width)) < 0.1, ids, -100)
    batch = to_rows(FakeBatch(ids, labels))
    micros = list(micro_batches(batch, sequences, CPU))
    assert sum(row_count(micro) for micro in micros) == rows
    assert sum(labelled_tokens(micro) for micro in micros) == labelled_tokens(batch) == (labels[:, 1:] != -100).sum()
    start = 0
    for micro in micros:
        assert len(micro["ids"]) <= sequences
        kept = micro["ids"].shape[1]
        np.testing.assert_array_equal(micro["ids"], ids[start : start + len(micro["ids"]), :kept])
        start += len(micro["ids"])


def test_pairs_stay_together_and_count_as_two_sequences():
    labels = np.zeros((5, 2, 64), dtype=np.int64)
    labels[:, :, 10:] = -100
    batch = to_rows({"ids": labels, "labels": labels, "reference": np.zeros((5, 2))})
    shapes = [(tuple(micro["ids"].shape), tuple(micro["reference"].shape)) for micro in micro_batches(batch, 4, CPU)]
    assert shapes == [((2, 2, 32), (2, 2)), ((2, 2, 32), (2, 2)), ((1, 2, 32), (1, 2))]
    assert batch["reference"].dtype == torch.float32


def test_padding_is_not_counted():
    batch = to_rows(
        {"ids": [[1, 2, 3]] * 2, "documents": torch.tensor([[0, 0, -1], [0, 1, 1]])} | {"labels": [[0] * 3] * 2}
    )
    assert real_tokens(batch) == 5


def test_uneven_arrays_are_refused():
    with pytest.raises(ValueError, match="differ in rows"):
        to_rows({"ids": np.zeros((2, 3)), "labels": np.zeros((3, 3))})
