"""Losses against torch's cross-entropy over all logits, and masks against brute force."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.model.transformer import Output
from glassbox.train import losses


def states(rows: int, length: int, width: int = 8, vocabulary: int = 23, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(rows * 100 + length)
    hidden = torch.randn(rows, length, width, generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (rows, length), generator=generator)
    return hidden, head, labels


def reference_logprobs(hidden, head, labels):
    """Position by position, with Python loops."""
    logprobs = torch.zeros(labels.shape, dtype=hidden.dtype)
    for row in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            if labels[row, t] != -100:
                logprobs[row, t] = torch.log_softmax(head @ hidden[row, t - 1], -1)[labels[row, t]]
    return logprobs


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_token_nll_and_its_gradients_equal_cross_entropy(monkeypatch, chunk):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", {"cpu": chunk})
    hidden, head, labels = (tensor.flatten(0, 1) if tensor.ndim == 3 else tensor for tensor in states(5, 20))
    labels = labels.flatten()
    labels[::3] = -100
    weights = torch.rand(100, dtype=torch.float64)
    ours = losses.token_nll(hidden, head, labels)
    theirs = F.cross_entropy(hidden @ head.T, labels, ignore_index=-100, reduction="none")
    torch.testing.assert_close(ours, theirs)
    inputs = (hidden, head)
    for mine, expected in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_summed_nll_and_its_gradients_equal_cross_entropy(monkeypatch, chunk):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", {"cpu": chunk})
    hidden, head, labels = states(5, 20)
    ours = losses.summed_nll(hidden.flatten(0, 1), head, labels.flatten())
    theirs = F.cross_entropy(hidden.flatten(0, 1) @ head.T, labels.flatten(), reduction="sum")
    torch.testing.assert_close(ours, theirs)
    inputs = (hidden, head)
    for mine, expected in zip(
        torch.autograd.grad(ours * 0.7, inputs), torch.autograd.grad(theirs * 0.7, inputs), strict=True
    ):
        torch.testing.assert_close(mine, expected)


def test_gradcheck():
    hidden, head, labels = states(1, 6)
    assert torch.autograd.gradcheck(losses.token_nll, (hidden[0], head, labels[0]))
    assert torch.autograd.gradcheck(losses.summed_nll, (hidden[0], head, labels[0]))


def test_bf16_states_give_fp32_losses_near_the_exact_ones():
    hidden, head, labels = states(4, 50, dtype=torch.float32)
    exact = losses.token_nll(hidden.flatten(0, 1), head, labels.flatten())
    half = losses.token_nll(hidden.flatten(0, 1).bfloat16(), head.bfloat16(), labels.flatten())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.2, rtol=0.05)
    (grad,) = torch.autograd.grad(
        losses.summed_nll(hidden.flatten(0, 1).bfloat16(), head.bfloat16(), labels.flatten()), head
    )
    assert grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 4), st.integers(1, 7))
def test_masks_by_brute_force(data, rows, length):
    hidden, head, labels = states(rows, length)
    kept = data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    labels[~torch.tensor(kept).view(rows, length)] = -100
    expected = reference_logprobs(hidden, head, labels)
    torch.testing.assert_close(losses.label_logprobs(hidden, head, labels), expected)
    torch.testing.assert_close(losses.sequence_logprobs(hidden, head, labels), expected.sum(-1))
    output = Output(hidden, hidden, torch.zeros(()), None)
    loss, _ = losses.next_token(output, head, {"labels": labels})
    torch.testing.assert_close(loss, -expected.sum())


def test_a_batch_without_labels_has_zero_loss_and_gradient():
    hidden, head, labels = states(2, 5)
    loss, _ = losses.next_token(
        Output(hidden, hidden, torch.zeros(()), None), head, {"labels": torch.full_like(labels, -100)}
    )
    loss.backward()
    assert loss == 0
    assert head.grad is not None
    assert not head.grad.any()
