"""Continuations of one prompt against scoring each whole row by itself."""

import pytest
import torch

from glassbox.errors import RequestError
from glassbox.generate import continuations
from glassbox.generate.continuations import continuation_logprobs
from glassbox.generate.score import logprobs
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network


def network(window: int | None = None, experts: Experts | None = None) -> Transformer:
    attention = Attention(heads=2, kv_heads=1, window=window)
    made = Network(dim=16, layers=2, hidden=None if experts else 24, attention=attention, experts=experts, init_std=0.3)
    model = Transformer(made, 50)
    model.init_weights(4)
    return model


@pytest.mark.parametrize("length", [1, 2, 30])
@pytest.mark.parametrize(
    "model",
    [network(), network(window=7), network(experts=Experts(count=4, top_k=2, hidden=12))],
    ids=["dense", "window", "experts"],
)
def test_options_score_as_whole_rows_do(model, length, monkeypatch) -> None:
    monkeypatch.setattr(continuations, "PREFILL_TOKENS", 11)
    generator = torch.Generator().manual_seed(length)
    prompt, *options = (torch.randint(50, (size,), generator=generator).tolist() for size in (length, 1, 5, 3, 5))
    rows = logprobs(model, [[*prompt, *option] for option in options])
    expected = [float(row[length - 1 :].sum()) for row in rows]
    assert continuation_logprobs(model, prompt, options) == pytest.approx(expected, rel=1e-5)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(RequestError, match="token id 50"):
        continuation_logprobs(network(), [1, 2], [[3], [50]])
