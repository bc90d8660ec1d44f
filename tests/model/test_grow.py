"""Weights from another model: the function stays the same, the copies are where they belong, the rest is refused."""

import pytest
import torch

from glassbox.errors import RequestError
from glassbox.model.grow import deepen, differences, grow, upcycle
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, MultiToken, Network

IDS = torch.arange(40).view(2, 20) % 31


def dense(layers: int = 4, **settings) -> Network:
    attention = Attention(heads=4, kv_heads=2, bias=True, qk_norm="head")
    return Network(**({"dim": 32, "layers": layers, "hidden": 48, "attention": attention, "init_std": 0.2} | settings))


def sparse(layers: int = 4, hidden: int = 48, **settings) -> Network:
    experts = Experts(**({"count": 4, "top_k": 2, "hidden": hidden, "normalise": True} | settings))
    return dense(layers, hidden=None, experts=experts)


def built(network: Network, state=None) -> Transformer:
    model = Transformer(network, 31)
    model.init_weights(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.linspace(-0.1, 0.1, len(weight)))
    if state is not None:
        model.load_state_dict(state)
    return model


def assert_same_function(one: Transformer, other: Transformer) -> None:
    with torch.no_grad():
        first, second = (model(IDS).hidden_BTD @ model.head_VD.T for model in (one, other))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [dense, sparse])
@pytest.mark.parametrize(("layers", "deeper"), [(4, 5), (4, 6), (2, 4)])
def test_a_deeper_network_computes_the_same(make, layers, deeper):
    start = built(make(layers))
    grown = built(make(deeper), grow(start.state_dict(), make(layers), make(deeper), seed=1))
    assert_same_function(start, grown)


def test_which_blocks_are_copies():
    start = built(dense(4))
    grown = deepen(start.state_dict(), dense(4), 6)
    for new, old in {0: 0, 1: 1, 2: 1, 3: 2, 4: 3, 5: 3}.items():
        same = torch.equal(grown[f"blocks.{new}.attention.qkv.weight"], start.blocks[old].attention.qkv.weight)
        silent = not bool(grown[f"blocks.{new}.feed_forward.down.weight"].any())
        assert same
        assert silent == (new in (2, 5))
        assert silent == (not bool(grown[f"blocks.{new}.attention.out.weight"].any()))


def test_new_blocks_learn():
    start = built(dense(2))
    grown = built(dense(4), deepen(start.state_dict(), dense(2), 4))
    grown(IDS).hidden_BTD.square().sum().backward()
    assert bool(grown.blocks[1].attention.out.weight.grad.any())


@pytest.mark.parametrize("settings", [{}, {"score": "sigmoid", "score_bias": True}, {"top_k": 4, "count": 6}])
def test_upcycled_experts_compute_what_the_dense_network_did(settings):
    start, target = built(dense()), sparse(**settings)
    state = grow(start.state_dict(), dense(), target, seed=1)
    assert_same_function(start, built(target, state))
    routers = [value for name, value in state.items() if name.endswith("router.weight")]
    assert len(routers) == 4
    assert float(torch.stack(routers).std()) == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(routers[0], routers[1])


def test_upcycling_keeps_first_dense_layers_and_reaches_multi_token_blocks():
    start = dense(multi_token=MultiToken())
    experts = Experts(count=4, top_k=2, hidden=48, normalise=True, first_dense=2)
    target = start.model_copy(update={"experts": experts})
    model = built(start)
    state = grow(model.state_dict(), start, target, seed=1)
    assert "blocks.1.feed_forward.gate_up.weight" in state
    assert "multi_token.0.block.feed_forward.gate_up_EDH" in state
    assert_same_function(model, built(target, state))


def test_deeper_and_sparse_at_once():
    start = built(dense(4))
    assert_same_function(start, built(sparse(5), grow(start.state_dict(), dense(4), sparse(5), seed=1)))


def test_noise_replaces_its_share_of_each_experts_weights():
    start = built(dense(dim=64, hidden=96, attention=Attention(heads=4, kv_heads=2)))
    network = start.network
    target = network.model_copy(update={"hidden": None, "experts": Experts(count=4, top_k=2, hidden=96)})
    plain, noisy, again, other = (
        upcycle(start.state_dict(), network, target, seed=seed, noise=noise)
        for seed, noise in ((1, 0.0), (1, 0.5), (1, 0.5), (2, 0.5))
    )
    for part in ("gate_up_EDH", "down_EHD"):
        name = f"blocks.0.feed_forward.{part}"
        changed = noisy[name] != plain[name]
        assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.02)
        assert float(noisy[name][changed].std()) == pytest.approx(0.02, rel=0.05)
        assert not torch.equal(noisy[name][0], noisy[name][1])
        assert torch.equal(noisy[name], again[name])
        assert not torch.equal(noisy[name], other[name])


def test_a_longer_context_takes_the_same_weights():
    start = dense()
    longer = start.model_copy(update={"attention": start.attention.model_copy(update={"rope_base": 640_000.0})})
    state = built(start).state_dict()
    assert all(torch.equal(state[name], value) for name, value in grow(state, start, longer, seed=1).items())


@pytest.mark.parametrize(
    ("start", "target", "words"),
    [
        (dense(), dense(dim=48), "dim is 32"),
        (dense(), dense(norm="layer"), "norm is rms"),
        (dense(), dense(hidden=64), "hidden is 48"),
        (dense(4), dense(3), "layers is 4"),
        (dense(4), dense(7), "number of new ones, 3, must divide"),
        (dense(), sparse(hidden=64), "experts is absent .* experts is given"),
        (dense(), sparse(shared=1), "set experts.shared to 0"),
        (sparse(), dense(), "experts is given .* experts is absent"),
        (sparse(), sparse(top_k=1), "experts.top_k is 2"),
        (dense(), dense(tie_embeddings=True), "tie_embeddings is False"),
        (dense(), dense(multi_token=MultiToken()), "multi_token is absent"),
    ],
)
def test_everything_else_is_refused_by_name(start, target, words):
    with pytest.raises(RequestError, match=words):
        grow({}, start, target, seed=1)


def test_a_width_of_heads_given_or_left_out_is_no_difference():
    spelled = dense(attention=Attention(heads=4, kv_heads=2, bias=True, qk_norm="head", head_dim=8))
    assert differences(dense(), spelled) == {}
    wider = dense(attention=Attention(heads=4, kv_heads=2, head_dim=16))
    assert differences(dense(), wider).keys() == {"attention.bias", "attention.qk_norm", "head_dim"}
