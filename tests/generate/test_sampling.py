"""Draws against distributions computed the long way."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glassbox.generate.sampling as sampling
from glassbox.generate.sampling import sample, uniforms


def draw(logits_NV, temperature=1.0, top_k=0, top_p=1.0, uniform_N=None, seed=0):
    N = len(logits_NV)
    full = lambda value, dtype: torch.full((N,), value, dtype=dtype)  # noqa: E731
    if uniform_N is None:
        uniform_N = torch.from_numpy(uniforms(np.full(N, seed, dtype=np.uint64), np.arange(N)))
    return sample(
        logits_NV, full(temperature, torch.float32), full(top_k, torch.long), full(top_p, torch.float32), uniform_N
    )


def processed(logits_V, temperature, top_k, top_p):
    """The distribution to draw from, one step at a time in float64."""
    prob = (logits_V.double() / temperature).softmax(0)
    order = prob.argsort(descending=True)
    if top_k:
        prob[order[top_k:]] = 0
        prob = prob / prob.sum()
    total = 0.0
    for rank, token in enumerate(order.tolist()):
        if rank and total >= top_p:
            prob[token] = 0
        else:
            total += float(prob[token])
    return prob / prob.sum()


@settings(max_examples=40, deadline=None)
@given(
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    candidates=st.sampled_from([2, 256]),
    seed=st.integers(0, 1000),
)
def test_frequencies_follow_the_distribution(temperature, top_k, top_p, candidates, seed):
    """An even grid of uniforms must give each token its share, to one grid step."""
    logits_V = 2 * torch.randn(11, generator=torch.Generator().manual_seed(seed))
    N = 2000
    before, sampling.CANDIDATES = sampling.CANDIDATES, candidates
    try:
        grid_N = (torch.arange(N, dtype=torch.float64) + 0.5) / N
        ids_N, _ = draw(logits_V.expand(N, -1), temperature, top_k, top_p, grid_N)
    finally:
        sampling.CANDIDATES = before
    share = torch.bincount(ids_N, minlength=11) / N
    expected = processed(logits_V, temperature, top_k, top_p)
    torch.testing.assert_close(share.double(), expected, atol=1.5 / N, rtol=0)
    assert not share[expected == 0].any()


def test_logprobs_are_of_the_unmodified_distribution():
    logits_NV = torch.randn(5, 13, generator=torch.Generator().manual_seed(0))
    for temperature, top_k in ((0.0, 0), (0.5, 0), (2.0, 3)):
        ids_N, logprob_N = draw(logits_NV, temperature, top_k)
        torch.testing.assert_close(logprob_N, logits_NV.log_softmax(-1).gather(1, ids_N[:, None])[:, 0])


def test_temperature_zero_takes_the_lowest_id_of_a_tie_and_ignores_the_rest():
    logits_NV = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    assert draw(logits_NV, temperature=0, top_k=2, top_p=0.1)[0].tolist() == [1, 0]


def test_rows_of_different_settings_are_drawn_as_if_alone():
    logits_NV = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    temperature, top_k = torch.tensor([0, 1, 0.7, 1, 0, 1.3]), torch.tensor([0, 0, 4, 0, 3, 2])
    top_p = torch.tensor([1, 1, 1, 0.6, 1, 0.9])
    uniform = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together, _ = sample(logits_NV, temperature, top_k, top_p, uniform)
    for i in range(6):
        row = slice(i, i + 1)
        assert together[i] == sample(logits_NV[row], temperature[row], top_k[row], top_p[row], uniform[row])[0][0]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-48])
def test_the_ends_of_the_unit_interval_never_give_an_impossible_token(uniform):
    logits_NV = torch.full((1, 9), float("-inf"))
    logits_NV[0, 4], logits_NV[0, 6] = 0.1, 0.3
    assert draw(logits_NV, uniform_N=torch.tensor([uniform], dtype=torch.float64))[0].item() in (4, 6)


def test_uniforms_are_even_independent_and_pure():
    seeds, index = np.meshgrid(np.arange(200, dtype=np.uint64), np.arange(200), indexing="ij")
    values = uniforms(seeds.ravel(), index.ravel()).reshape(200, 200)
    assert np.array_equal(values[7], uniforms(np.full(200, 7, dtype=np.uint64), np.arange(200)))
    assert (values >= 0).all()
    assert (values < 1).all()
    counts = np.bincount((values.ravel() * 100).astype(int), minlength=100)
    assert ((counts - 400) ** 2 / 400).sum() < 160  # chi-square with 99 degrees of freedom: 1 in 10,000 is above
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02  # neighbouring seeds
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.02  # neighbouring draws
