"""The groups of AdamW and RMSProp, and their updates against the textbook's and PyTorch's."""

import pytest
import torch

from glassbox.errors import Interrupted
from glassbox.ledger.workspace import Workspace
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.optimizer import build_optimizer
from glassbox.train.parallel.place import Placed
from tests.train.conftest import VOCABULARY, build, counting_rows

SETTINGS = Optimizer(lr=0.01)


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_what_decays(tie, decay_embeddings):
    model = build(tie=tie)
    adamw = build_optimizer(Placed([model]), Optimizer(lr=1e-3, decay_embeddings=decay_embeddings))
    decaying = {id(p) for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        embedding = name in ("embedding.weight", "head.weight")
        assert (id(parameter) in decaying) == ((decay_embeddings or not embedding) and "norm" not in name), name
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(model.parameters()))


def test_update_is_adamw():
    model = build(experts=False)
    settings = Optimizer(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    adamw = build_optimizer(Placed([model]), settings)
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


def test_update_is_rmsprop():
    """Against the formulas with decoupled decay, and without decay against PyTorch's own, bit for bit."""
    model, plain = build(experts=False), build(experts=False)
    settings = Optimizer(name="rmsprop", lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.3)
    rmsprop = build_optimizer(Placed([model]), settings)
    theirs = torch.optim.RMSprop(plain.parameters(), lr=0.01, alpha=0.99, eps=1e-6)
    weight = model.blocks[0].attention.out.weight
    expected, square = weight.detach().double().clone(), 0.0
    for step in range(1, 4):
        for parameter in (*model.parameters(), *plain.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * step)
        rmsprop.step()
        theirs.step()
        square = 0.99 * square + 0.01 * (0.1 * step) ** 2
        expected = expected * (1 - 0.01 * 0.3) - 0.01 * 0.1 * step / (square**0.5 + 1e-6)
    torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(model.norm.weight, plain.norm.weight)  # gains do not decay
    assert rmsprop.state[weight].keys() == {"step", "square_avg"}


def test_rmsprop_leaves_what_has_no_gradient():
    model = build(experts=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rmsprop = build_optimizer(Placed([model]), Optimizer(name="rmsprop", lr=0.01))
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    rmsprop.step()
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])] == [
        "norm.weight"
    ]


def test_mup_divides_the_rate_of_hidden_matrices_by_their_width(tmp_path):
    """Widths as in arXiv:2203.03466, table 8: input, output and gains learn at the base's rate."""
    model = build(experts=False)
    wide = Transformer(model.network.model_copy(update={"mup_base": 8}), VOCABULARY)
    widths = {
        id(p): group["width"]
        for group in build_optimizer(Placed([wide]), SETTINGS).param_groups
        for p in group["params"]
    }
    for name, parameter in wide.named_parameters():
        outer = name in ("embedding.weight", "head.weight") or "norm" in name
        assert widths[id(parameter)] == (1.0 if outer else 4.0), name
    assert {group["width"] for group in build_optimizer(Placed([model]), SETTINGS).param_groups} == {1.0}


def test_the_loop_steps_each_group_at_its_own_rate(tmp_path):
    wide = Transformer(build(experts=False).network.model_copy(update={"mup_base": 8}), VOCABULARY)
    wide.init_weights(3)
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    fit(
        wide,
        counting_rows,
        next_token,
        steps=1,
        course=steady(Optimizer(lr=0.01, weight_decay=0.0), Schedule(shape="constant", warmup=0), 1),
        loop=Loop(micro_rows=6),
        workspace=Workspace(tmp_path),
    )
    for name, rate in {"norm.weight": 0.01, "blocks.0.attention.out.weight": 0.0025}.items():
        moved = (wide.state_dict()[name] - before[name]).abs().max()  # Adam's first step is the rate itself
        assert float(moved) == pytest.approx(rate, rel=1e-3)


def test_rmsprop_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    def train(folder, stop_at=None):
        model, seen = build(experts=False), []
        folder.mkdir(exist_ok=True)
        fit(
            model,
            counting_rows,
            next_token,
            steps=5,
            course=steady(Optimizer(name="rmsprop", lr=0.003, betas=(0.9, 0.99)), Schedule(shape="linear"), 5),
            loop=Loop(micro_rows=6),
            workspace=Workspace(
                folder,
                on_progress=lambda done, total, note: seen.append(done),
                stop_requested=lambda: bool(seen) and seen[-1] == stop_at,
            ),
        )
        return model.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stop_at=2)
    assert all(torch.equal(value, whole[name]) for name, value in train(tmp_path / "parts").items())
