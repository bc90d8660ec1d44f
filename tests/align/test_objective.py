"""Alignment objectives against the test vectors, TRL's value, and themselves under other micro-batches."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glassbox.align.objective import dpo, dpo_loss, sft
from glassbox.model.transformer import Transformer
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.rows import labelled_tokens, row_count, to_rows
from glassbox.train.step import accumulate
from tests.tiny import OBJECTIVE_VOCABULARY as VOCABULARY
from tests.tiny import objective_model as build


def pairs(count: int = 5, length: int = 40) -> dict[str, np.ndarray]:
    """Pairs with a shared prompt of 6 tokens and completions of their own lengths, padded."""
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCABULARY, (count, 2, length))
    ids[:, 1, :6] = ids[:, 0, :6]
    ends = random.integers(8, length, (count, 2, 1))
    column = np.arange(length)
    return {
        "ids": ids,
        "labels": np.where((column >= 6) & (column < ends), ids, -100),
        "documents": np.where(column < ends, 0, -1) + np.zeros_like(ids),
    }


def with_reference(batch: dict[str, np.ndarray], model: Transformer) -> dict:
    return batch | {"reference": logprobs_of_labels(model, batch).sum(-1)}


def run(model: Transformer, batch: dict, objective, denominator, micro_rows: int = 100):
    model.zero_grad()
    rows = to_rows(batch)
    result = accumulate(model, rows, objective, denominator(rows), micro_rows)
    return result, [parameter.grad.clone() for parameter in model.parameters()]


def test_vector():
    chosen, rejected = torch.tensor([[-12.0 + 13.0], [-15.0 + 14.0]], dtype=torch.float64)
    assert float(dpo_loss(chosen, rejected, 0.1)) == pytest.approx(0.598138869, abs=1e-9)


def test_at_the_start_the_loss_is_log_2_and_margins_are_0():
    model = build(1)
    result, _ = run(model, with_reference(pairs(), model), dpo(0.1), row_count)
    assert float(result.loss) == pytest.approx(math.log(2), abs=1e-6)
    assert float(result.metrics["margin"]) == pytest.approx(0, abs=1e-5)
    assert float(result.metrics["reward_chosen"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("micro_rows", [1, 4, 6])
def test_dpo_does_not_depend_on_the_micro_batch(micro_rows):
    model, batch = build(1), with_reference(pairs(), build(2))
    whole, expected = run(model, batch, dpo(0.1), row_count)
    parts, grads = run(model, batch, dpo(0.1), row_count, micro_rows)
    torch.testing.assert_close(parts.loss, whole.loss)
    torch.testing.assert_close(parts.metrics, whole.metrics)
    torch.testing.assert_close(grads, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_dpo_loss_metrics_and_gradient_equal_trl():
    from trl import DPOTrainer

    model, reference = build(1), build(2)
    batch = pairs()
    result, grads = run(model, with_reference(batch, reference), dpo(0.1), row_count)

    rows = to_rows(batch)
    ids, labels, documents = (torch.cat(rows[name].unbind(1)) for name in ("ids", "labels", "documents"))

    def plain(of: Transformer):
        """TRL's model: all chosen, then all rejected, through torch's own log-softmax."""

        def call(**kwargs):
            logits = of(ids, None, documents).hidden_BTD[:, :-1] @ of.head_VD.T
            logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
            zero = torch.zeros_like(logprobs)
            return SimpleNamespace(
                log_probs=logprobs * (labels[:, 1:] != -100), entropy=zero, mean_logits=zero, is_top1=zero.bool()
            )

        call.training = True
        return call

    same = lambda value: value  # noqa: E731
    metrics: dict[str, list] = {name: [] for name in ("entropy", "num_tokens", "mean_token_accuracy")}
    for name in ("logits", "rewards", "logps"):
        metrics |= {f"{name}/{side}": [] for side in ("chosen", "rejected", "accuracies", "margins")}
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", unwrap_model=same, gather=same, gather_for_metrics=same),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        ref_model=plain(reference),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=0.1,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": metrics},
        _total_train_tokens=0,
        _tp_size=1,
    )
    reference_P2 = with_reference(batch, reference)["reference"]
    inputs = {
        "input_ids": ids,
        "attention_mask": (documents >= 0).long(),
        "completion_mask": (labels != -100).long(),
        "ref_chosen_logps": reference_P2[:, 0],
        "ref_rejected_logps": reference_P2[:, 1],
    }
    model.zero_grad()
    loss = DPOTrainer._compute_loss(trainer, plain(model), inputs, return_outputs=False)
    loss.backward()
    torch.testing.assert_close(torch.tensor(result.loss), loss.detach(), atol=1e-6, rtol=1e-5)
    for ours, theirs in (
        ("reward_chosen", "rewards/chosen"),
        ("reward_rejected", "rewards/rejected"),
        ("margin", "rewards/margins"),
        ("accuracy", "rewards/accuracies"),
        ("logprob_chosen", "logps/chosen"),
    ):
        assert float(result.metrics[ours]) == pytest.approx(metrics[theirs][0], rel=1e-5, abs=1e-5), ours
    for grad, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, atol=1e-6, rtol=1e-4)


def test_sft_trains_on_labelled_tokens_alone():
    model = build(1)
    batch = {name: value.reshape(10, -1) for name, value in pairs().items()}
    result, grads = run(model, batch, sft, labelled_tokens)
    expected = -logprobs_of_labels(model, batch).sum() / (batch["labels"] != -100).sum()
    torch.testing.assert_close(torch.tensor(result.loss), expected)
    parts, again = run(model, batch, sft, labelled_tokens, micro_rows=3)
    assert parts.loss == pytest.approx(result.loss, rel=1e-6)
    torch.testing.assert_close(grads, again, atol=1e-6, rtol=1e-4)
    unlabelled = batch["ids"].copy()
    unlabelled[batch["documents"] < 0] = 0  # padding's content is nothing
    other, _ = run(model, batch | {"ids": unlabelled}, sft, labelled_tokens)
    assert other.loss == pytest.approx(result.loss, rel=1e-6)
