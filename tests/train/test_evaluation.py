"""Held-out measures against sums over full logits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassbox.train.evaluation import held_out_metrics, logprobs_of_labels
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
    found = held_out_metrics(model, held_out, "web", micro_rows=3)
    assert found == {"bits_per_byte/web": pytest.approx(nats / math.log(2) / 131, rel=1e-5)}
    assert held_out_metrics(model, [], "web") == {}


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    model = build()
    model.head.weight.data.zero_()
    found = held_out_metrics(model, [(counting_rows(1, pad=0), 6 * 39)], "web")
    assert found["bits_per_byte/web"] == pytest.approx(math.log2(VOCABULARY), rel=1e-6)


def test_logprobs_of_labels_of_pairs():
    model = build()
    rows = counting_rows(1)
    flat = logprobs_of_labels(model, rows, micro_rows=4)
    pairs = {name: value.reshape(3, 2, -1) for name, value in rows.items()}
    torch.testing.assert_close(logprobs_of_labels(model, pairs, micro_rows=4), flat.view(3, 2, -1))
    assert ((flat != 0) == torch.from_numpy(np.asarray(rows["labels"]) != -100)).all()
    assert not flat.requires_grad


def test_acceptance_is_the_share_of_positions_where_a_block_names_the_networks_own_choice():
    model = build(ahead=2)
    batch = counting_rows(1)
    batch["documents"] = np.where(np.arange(40) < 15, 0, np.where(batch["documents"] < 0, -1, 1))
    batch["labels"][:, 15] = -100  # the second document's first token
    rows = to_rows(batch)
    output = model(rows["ids"], None, rows["documents"], drafts=True)
    own = (output.hidden_BTD @ model.head_VD.T).argmax(-1)
    accepted, drafted = [0, 0], [0, 0]
    for k, draft in enumerate(output.drafts, 1):
        named = (draft @ model.head_VD.T).argmax(-1)
        for row in range(6):
            for i in range(40 - k - 1):
                target = i + k + 1
                if rows["labels"][row, target] != -100 and len(set(batch["documents"][row, i : target + 1])) == 1:
                    drafted[k - 1] += 1
                    accepted[k - 1] += int(named[row, i] == own[row, target - 1])
    found = held_out_metrics(model, [(batch, 100)], "web", micro_rows=4)
    assert found["acceptance/web"] == pytest.approx(accepted[0] / drafted[0])
    assert found["acceptance_2/web"] == pytest.approx(accepted[1] / drafted[1])
