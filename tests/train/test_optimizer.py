"""AdamW's groups, and its update against the textbook's."""

import pytest
import torch

from glassbox.recipe.training import Optimizer
from glassbox.train.optimizer import build_adamw
from tests.train.conftest import build


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_what_decays(tie, decay_embeddings):
    model = build(tie=tie)
    adamw = build_adamw(model, Optimizer(lr=1e-3, decay_embeddings=decay_embeddings))
    decaying = {id(p) for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        embedding = name in ("embedding.weight", "head.weight")
        assert (id(parameter) in decaying) == ((decay_embeddings or not embedding) and "norm" not in name), name
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(model.parameters()))


def test_update_is_adamw():
    model = build(experts=False)
    settings = Optimizer(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    adamw = build_adamw(model, settings)
    weight = model.blocks[0].attention.out.weight
    expected, mean, square = weight.detach().double().clone(), 0.0, 0.0
    for step in range(1, 4):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * step)
        adamw.step()
        mean = 0.8 * mean + 0.2 * 0.1 * step
        square = 0.9 * square + 0.1 * (0.1 * step) ** 2
        root = (square / (1 - 0.9**step)) ** 0.5 + 1e-6
        expected = expected * (1 - 0.01 * 0.3) - 0.01 * mean / (1 - 0.8**step) / root
    torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=1e-5)
