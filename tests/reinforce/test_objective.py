"""GRPO against the test vectors, TRL's value, REINFORCE, and itself under other micro-batches."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassbox.model.transformer import Output, Transformer
from glassbox.recipe.training import Grpo
from glassbox.reinforce.objective import (
    clipped_loss,
    denominator,
    group_advantages,
    grpo,
    informative,
    k3,
    token_weights,
)
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.rows import to_rows
from glassbox.train.step import accumulate
from tests.tiny import OBJECTIVE_VOCABULARY as VOCABULARY
from tests.tiny import objective_model as build

F64 = torch.float64


def near(seed: int) -> Transformer:
    """A policy a few updates away from `build(1)`."""
    model = build(1)
    for mine, other in zip(model.parameters(), build(seed).parameters(), strict=True):
        mine.data.lerp_(other.data, 0.05)
    return model


def completions(count: int = 6, length: int = 40) -> dict:
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCABULARY, (count, length))
    ends = random.integers(8, length, (count, 1))
    column = np.arange(length)
    batch = {
        "ids": ids,
        "labels": np.where((column >= 5) & (column < ends), ids, -100),
        "documents": np.where(column < ends, 0, -1) + np.zeros_like(ids),
        "advantage": random.normal(size=count),
    }
    policies = {"old_logprob": near(2), "reference_logprob": near(3)}
    return batch | {name: logprobs_of_labels(model, batch) for name, model in policies.items()}


def run(model: Transformer, batch: dict, settings: Grpo, micro_rows: int = 100):
    model.zero_grad()
    rows = to_rows(batch)
    result = accumulate(model, rows, grpo(settings), denominator(settings)(rows), micro_rows)
    return result, [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize(("kind", "size"), [("grpo", 0.866023904), ("dr_grpo", 0.5), ("rloo", 0.666666667)])
def test_advantage_vectors(kind, size):
    advantage = group_advantages(torch.tensor([[1, 0, 0, 1]], dtype=F64), kind)
    torch.testing.assert_close(advantage, torch.tensor([[size, -size, -size, size]], dtype=F64), atol=1e-9, rtol=0)


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 1.0, float("nan")]), min_size=5, max_size=5), min_size=1, max_size=6),
    st.sampled_from(["grpo", "dr_grpo", "rloo"]),
)
def test_advantages_by_brute_force(rewards, kind):
    advantage = group_advantages(torch.tensor(rewards, dtype=F64), kind)
    for mine, group in zip(advantage.tolist(), rewards, strict=True):
        known = [reward for reward in group if reward == reward]
        for value, reward in zip(mine, group, strict=True):
            if reward != reward or len(set(known)) < 2:
                assert value == 0
                continue
            mean, others = np.mean(known), (sum(known) - reward) / (len(known) - 1)
            expected = {"dr_grpo": reward - mean, "rloo": reward - others}
            expected["grpo"] = (reward - mean) / (np.std(known, ddof=1) + 1e-6)
            assert value == pytest.approx(expected[kind], abs=1e-12)


def test_a_group_of_one_and_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(torch.ones(3, 1), "grpo")
    with pytest.raises(ValueError, match="unknown advantage"):
        group_advantages(torch.ones(3, 2), "gae")


def test_informative():
    nan = float("nan")
    groups = torch.tensor([[1, 0, nan], [1, 1, nan], [nan, nan, 0], [nan, nan, nan], [0, 1, 1]])
    assert informative(groups).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("aggregate", "high", "loss"),
    [("sequence", 0.2, -0.047324655), ("token", 0.2, 0.303567126), ("token", 0.28, 0.290233793)],
)
def test_objective_vectors(aggregate, high, loss):
    """Two completions of 2 and 4 tokens, through the same pieces as the objective, in float64."""
    settings = Grpo(aggregate=aggregate, clip_high=high)
    new = torch.tensor([[-1, -0.5, 0, 0], [-2, -1, -0.7, -0.2]], dtype=F64)
    old = torch.tensor([[-1.3, -0.5, 0, 0], [-1.6, -1, -0.9, -0.2]], dtype=F64)
    labels = torch.tensor([[1, 1, -100, -100], [1, 1, 1, 1]])
    token_loss, clipped = clipped_loss(new, old, torch.tensor([[1.0], [-1.0]], dtype=F64), 0.2, high)
    weight = token_weights(labels, settings).double()
    total = denominator(settings)({"ids": labels, "labels": torch.nn.functional.pad(labels, (1, 0))})
    assert float((weight * token_loss).sum() / total) == pytest.approx(loss, abs=1e-9)
    if high == 0.2:
        assert float((token_loss * (labels != -100)).sum() / (2 * 8)) == pytest.approx(
            0.113837672, abs=1e-9
        )  # Dr. GRPO
    # ratios 1.3499 with A > 0 and 0.6703 with A < 0 are stopped; 1.2214 with A < 0 is not
    assert clipped.tolist() == [[True, False, False, False], [True, False, False, False]]


def test_k3():
    zero = torch.zeros((), dtype=F64)
    assert float(k3(zero + 0.3, zero)) == pytest.approx(0.040818221, abs=1e-9)
    assert float(k3(zero - 100, zero)) == 10
    assert float(k3(zero, zero)) == 0


def test_a_huge_ratio_stays_finite():
    new = torch.tensor([500.0, -500.0], requires_grad=True)
    loss, _ = clipped_loss(new, torch.zeros(2), torch.tensor([-1.0, 1.0]), 0.2, 0.2)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert new.grad is not None
    assert new.grad.isfinite().all()


@pytest.mark.parametrize("settings", [Grpo(kl=0.1), Grpo(aggregate="sequence", kl=0.1)])
def test_it_does_not_depend_on_the_micro_batch(settings):
    model, batch = build(1), completions()
    whole, expected = run(model, batch, settings)
    for micro_rows in (1, 4):
        parts, grads = run(model, batch, settings, micro_rows)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
        torch.testing.assert_close(parts.metrics, whole.metrics)
        torch.testing.assert_close(grads, expected, atol=1e-6, rtol=1e-4)


def test_one_update_per_rollout_is_reinforce_with_a_baseline():
    model, batch = build(1), completions()
    del batch["old_logprob"]
    result, grads = run(model, batch, Grpo())
    assert float(result.metrics["clip_share"]) == 0
    rows = to_rows(batch)
    logits = model(rows["ids"], None, rows["documents"]).hidden_BTD[:, :-1] @ model.head_VD.T
    logprob = logits.log_softmax(-1).gather(-1, rows["ids"][:, 1:, None]).squeeze(-1)
    mask = rows["labels"][:, 1:] != -100
    model.zero_grad()
    (-(rows["advantage"][:, None] * logprob * mask).sum() / mask.sum()).backward()
    torch.testing.assert_close(grads, [parameter.grad for parameter in model.parameters()], atol=1e-6, rtol=1e-4)
    assert float(result.metrics["entropy"]) == pytest.approx(
        float(-(logprob * mask).sum().detach() / mask.sum()), rel=1e-5
    )


def test_equal_rewards_give_exactly_no_gradient():
    model, batch = build(1), completions()
    batch["advantage"] = group_advantages(torch.full((2, 3), 0.1), "grpo").flatten()
    _, grads = run(model, batch, Grpo())
    assert not any(grad.any() for grad in grads)


def test_temperature_divides_the_logits():
    hidden, head = torch.randn(1, 4, 8), torch.randn(5, 8)
    rows = {"labels": torch.tensor([[-100, 1, 2, 3]]), "advantage": torch.ones(1)}
    output = Output(hidden, hidden, torch.zeros(()), None)
    _, metrics = grpo(Grpo(), temperature=0.5)(output, head, rows)
    expected = ((hidden @ head.T) / 0.5).log_softmax(-1)[0, torch.arange(3), torch.tensor([1, 2, 3])]
    torch.testing.assert_close(metrics["entropy"], -expected.sum())


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_loss_and_gradient_equal_trl(aggregate):
    from trl import GRPOTrainer

    model, batch = build(1), completions()
    result, grads = run(model, batch, Grpo(aggregate=aggregate, clip_high=0.3, kl=0.05))
    rows = to_rows(batch)
    mask = (rows["labels"] != -100)[:, 1:].long()

    def logprobs_and_entropies(*args, **kwargs):
        logits = model(rows["ids"], None, rows["documents"]).hidden_BTD[:, :-1] @ model.head_VD.T
        logprob = logits.log_softmax(-1).gather(-1, rows["ids"][:, 1:, None]).squeeze(-1)
        return logprob, torch.zeros_like(logprob), None

    same = lambda value, **kwargs: value  # noqa: E731
    metrics = defaultdict(list)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=logprobs_and_entropies,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=same, reduce=same),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        loss_type={"token": "dapo", "sequence": "grpo"}[aggregate],
        epsilon_low=0.2,
        epsilon_high=0.3,
        beta=0.05,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": metrics},
    )
    inputs = {
        "prompt_ids": rows["ids"][:, :1],
        "prompt_mask": torch.ones(6, 1),
        "completion_ids": rows["ids"][:, 1:],
        "completion_mask": mask,
        "advantages": rows["advantage"],
        "old_per_token_logps": rows["old_logprob"][:, 1:],
        "ref_per_token_logps": rows["reference_logprob"][:, 1:],
        "num_items_in_batch": mask.sum(),
    }
    model.zero_grad()
    loss = GRPOTrainer._compute_loss(trainer, model, inputs)
    loss.backward()
    torch.testing.assert_close(torch.tensor(result.loss), loss.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(grads, [parameter.grad for parameter in model.parameters()], atol=1e-5, rtol=1e-3)
    if aggregate == "token":
        assert float(result.metrics["clip_share"]) == pytest.approx(metrics["clip_ratio/region_mean"][0], rel=1e-5)
        assert float(result.metrics["kl"]) == pytest.approx(metrics["kl"][0], rel=1e-4)
