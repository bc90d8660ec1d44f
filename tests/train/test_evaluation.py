"""Held-out measures against sums over full logits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassbox.train.evaluation import bits_per_byte, logprobs_of_labels
from glassbox.train.rows import to_rows
from tests.train.conftest import VOCABULARY, build, counting_rows


def test_bits_per_byte_is_summed_over_batches():
    model = build()
    held_out = [(counting_rows(1), 100), (counting_rows(2, rows=2), 31)]
    nats = 0.0
    for batch, _ in held_out:
        rows = to_rows(batch)
        logits = model(rows["ids"], None, rows["documents"]).hidden_BTD[:, :-1] @ model.head_VD.T
        nats += float(F.cross_entropy(logits.flatten(0, 1), rows["labels"][:, 1:].flatten(), reduction="sum").detach())
    assert bits_per_byte(model, held_out, micro_rows=3) == pytest.approx(nats / math.log(2) / 131, rel=1e-5)
    assert bits_per_byte(model, []) is None


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    model = build()
    model.head.weight.data.zero_()
    assert bits_per_byte(model, [(counting_rows(1, pad=0), 6 * 39)]) == pytest.approx(math.log2(VOCABULARY), rel=1e-6)


def test_logprobs_of_labels_of_pairs():
    model = build()
    rows = counting_rows(1)
    flat = logprobs_of_labels(model, rows, micro_rows=4)
    pairs = {name: value.reshape(3, 2, -1) for name, value in rows.items()}
    torch.testing.assert_close(logprobs_of_labels(model, pairs, micro_rows=4), flat.view(3, 2, -1))
    assert ((flat != 0) == torch.from_numpy(np.asarray(rows["labels"]) != -100)).all()
    assert not flat.requires_grad
