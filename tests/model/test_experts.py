"""The mixture of experts against a loop over tokens, and the losses against OLMoE's worked numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.model.experts import MixtureOfExperts, Routing, balance, grouped_product
from glassbox.recipe.network import Attention, Experts, Network


def network(experts: Experts) -> Network:
    return Network(dim=16, layers=1, attention=Attention(heads=2, kv_heads=2), experts=experts)


def layer(experts: Experts, seed: int = 0) -> MixtureOfExperts:
    made = MixtureOfExperts(network(experts))
    generator = torch.Generator().manual_seed(seed)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.25, generator=generator)
    return made


def by_loop(made: MixtureOfExperts, x_TD: torch.Tensor) -> torch.Tensor:
    experts, rows = made.router.experts, []
    for x in x_TD:
        prob = (made.router.weight @ x).softmax(0)
        weights, chosen = prob.topk(experts.top_k)
        weights = weights / weights.sum() if experts.normalise else weights
        y = torch.zeros_like(x)
        for weight, e in zip(weights, chosen.tolist(), strict=True):
            gate, up = (x @ made.gate_up_EDH[e]).chunk(2)
            y = y + weight * ((F.silu(gate) * up) @ made.down_EHD[e])
        rows.append(y)
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 20),
    count=st.integers(2, 9),
    top_k=st.integers(1, 3),
    normalise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dropless_equals_a_loop_over_tokens(tokens, count, top_k, normalise, seed):
    made = layer(Experts(count=count, top_k=min(top_k, count), hidden=8, normalise=normalise), seed)
    x_TD = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    y_TD, _ = made(x_TD)
    expected = by_loop(made, x_TD)
    torch.testing.assert_close(y_TD, expected, atol=1e-5, rtol=1e-4)
    inputs = (x_TD, *made.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(y_TD.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_an_expert_nobody_chose_gets_zero_gradients():
    made = layer(Experts(count=4, top_k=1, hidden=8))
    with torch.no_grad():
        made.router.weight.zero_()
        made.router.weight[2] = 1.0
    y_TD, routing = made(torch.rand(6, 16))
    y_TD.square().sum().backward()
    assert balance(routing, None, made.router.experts)[1].tolist() == [0, 0, 6, 0]
    for weight in (made.gate_up_EDH, made.down_EHD):
        assert torch.equal(weight.grad[[0, 1, 3]], torch.zeros_like(weight.grad[[0, 1, 3]]))
        assert weight.grad[2].abs().sum() > 0


def test_ties_choose_k_different_experts_and_repeat():
    made = layer(Experts(count=6, top_k=3, hidden=8))
    with torch.no_grad():
        made.router.weight.zero_()
    x_TD = torch.randn(9, 16)
    (first, routing), (second, _) = made(x_TD), made(x_TD)
    assert torch.equal(first, second)
    assert all(len(set(row)) == 3 for row in routing.expert_TK.tolist())
    assert torch.allclose(routing.weight_TK, torch.tensor(1 / 6))  # not rescaled: sums to K/E (OLMoE)


OLMOE = {"count": 64, "top_k": 8, "hidden": 8}


def by_hand(logit_TE, prob_TE, expert_TK, **weights):
    weight_TK = prob_TE.gather(1, expert_TK)
    return balance(Routing(logit_TE, prob_TE, weight_TK, expert_TK), None, Experts(**OLMOE, **weights))


def test_balanced_and_collapsed_load_balancing_loss():
    uniform_TE, everyone_TK = torch.full((64, 64), 1 / 64), torch.arange(64 * 8).view(64, 8) % 64
    loss, load_E = by_hand(torch.zeros(64, 64), uniform_TE, everyone_TK, balance_loss=1, z_loss=0)
    assert loss.item() == pytest.approx(1)
    assert load_E.tolist() == [8] * 64
    collapsed_TE, same_TK = torch.zeros(64, 64), torch.arange(8).expand(64, 8)
    collapsed_TE[:, :8] = 1 / 8
    assert by_hand(torch.zeros(64, 64), collapsed_TE, same_TK, balance_loss=1, z_loss=0)[0].item() == pytest.approx(8)


def test_z_loss_of_zero_logits():
    uniform_TE, any_TK = torch.full((5, 64), 1 / 64), torch.arange(40).view(5, 8)
    loss, _ = by_hand(torch.zeros(5, 64), uniform_TE, any_TK, balance_loss=0, z_loss=1)
    assert loss.item() == pytest.approx(math.log(64) ** 2 / 8)
    assert loss.item() == pytest.approx(2.162039, abs=1e-6)


def test_padding_counts_in_neither_losses_nor_load():
    made = layer(Experts(count=5, top_k=2, hidden=8))
    x_TD = torch.randn(11, 16)
    valid_T = torch.tensor([True, False, True, True, False, True, True, True, False, True, True])
    loss, load_E = balance(made.router(x_TD), valid_T, made.router.experts)
    expected, expected_E = balance(made.router(x_TD[valid_T]), None, made.router.experts)
    torch.testing.assert_close(loss, expected)
    assert torch.equal(load_E, expected_E)
    assert load_E.sum() == 2 * 8
    assert balance(made.router(x_TD), torch.zeros(11, dtype=torch.bool), made.router.experts)[0].item() == 0


def test_grouped_product_takes_expanded_gradients_and_compiles_fake():
    x, w = torch.randn(10, 8, requires_grad=True), torch.randn(3, 8, 4, requires_grad=True)
    ends = torch.tensor([4, 4, 10], dtype=torch.int32)
    grouped_product(x, w, ends).sum().backward()
    expected = torch.cat([x[:4] @ w[0], x[4:] @ w[2]])
    for ours, theirs in zip((x.grad, w.grad), torch.autograd.grad(expected.sum(), (x, w)), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.library.opcheck(grouped_product, (x, w, ends))


@settings(max_examples=15, deadline=None)
@given(tokens=st.integers(1, 70), skew=st.floats(0, 4), seed=st.integers(0, 99))
def test_rows_aligned_for_bf16_change_nothing(tokens, skew, seed):
    """Training in bf16 pads each expert's rows; without gradients they stay dense; both agree with fp32."""
    made = layer(Experts(count=5, top_k=2, hidden=8, normalise=True), seed)
    with torch.no_grad():
        made.router.weight[0] *= 1 + skew  # some experts crowded, some empty
    wide = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(seed))
    x_TD = wide.bfloat16().requires_grad_()
    y_TD, _ = made(x_TD)
    with torch.no_grad():
        dense_TD, _ = made(x_TD)
    torch.testing.assert_close(y_TD, dense_TD, atol=2e-2, rtol=2e-2)
    x32_TD = wide.bfloat16().float().requires_grad_()
    y32_TD, _ = made(x32_TD)
    inputs = (made.gate_up_EDH, made.down_EHD)
    ours = torch.autograd.grad(y_TD.float().square().sum(), (x_TD, *inputs))
    exact = torch.autograd.grad(y32_TD.square().sum(), (x32_TD, *inputs))
    for mine, theirs in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=5e-2 * float(theirs.abs().max() + 1e-3), rtol=0.1)
