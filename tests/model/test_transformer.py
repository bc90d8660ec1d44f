"""The network against transformers' own classes, and its own promises about packing, windows and caches."""

import math

import pytest
import torch
import torch.nn.functional as F

from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer, mup_width
from glassbox.recipe.network import Attention, Experts, MultiToken, Network

from .peers import peer, translated

DENSE = Network(dim=32, layers=2, attention=Attention(heads=4, kv_heads=2), hidden=48)
WINDOWED = DENSE.model_copy(update={"attention": Attention(heads=4, kv_heads=2, window=5)})
MIXTURE = Network(
    dim=32,
    layers=2,
    attention=Attention(heads=4, kv_heads=2),
    experts=Experts(count=4, top_k=2, hidden=24, normalise=True),
)
TIED = DENSE.model_copy(update={"tie_embeddings": True})
V = 64


def build(network: Network, seed: int = 0) -> Transformer:
    model = Transformer(network, V)
    model.init_weights(seed)
    with torch.no_grad():  # larger weights than the usual first ones, so that differences show
        for weight in model.parameters():
            weight.mul_(5 if weight.dim() > 1 else 1.3)
    return model


def logits(model: Transformer, *args, **kwargs) -> torch.Tensor:
    return model(*args, **kwargs).hidden_BTD @ model.head_VD.T


@pytest.mark.parametrize("network", [DENSE, WINDOWED, MIXTURE, TIED], ids=["dense", "windowed", "mixture", "tied"])
def test_logits_and_gradients_equal_transformers(network):
    ours = build(network)
    theirs = peer(ours)
    assert not set(dict(theirs.named_parameters())) - set(translated(ours, "data")), "a weight of the peer was not set"
    ids_BT = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(1))
    mine, others = logits(ours, ids_BT), theirs(ids_BT).logits
    torch.testing.assert_close(mine, others, atol=2e-5, rtol=1e-4)
    for scores in (mine, others):
        F.cross_entropy(scores[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
    gradients = translated(ours, "grad")
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(
            gradients[name], weight.grad, atol=1e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("network", [DENSE, WINDOWED, MIXTURE], ids=["dense", "windowed", "mixture"])
def test_packed_documents_equal_separate_ones(network):
    model = build(network)
    documents = [torch.randint(V, (n,), generator=torch.Generator().manual_seed(n)) for n in (9, 1, 12)]
    packed = logits(
        model,
        torch.cat(documents)[None],
        torch.cat([torch.arange(len(document)) for document in documents])[None],
        torch.cat([torch.full((len(document),), i) for i, document in enumerate(documents)])[None],
    )[0]
    for part, document in zip(packed.split([9, 1, 12]), documents, strict=True):
        torch.testing.assert_close(part, logits(model, document[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 16, 17, 40])
def test_window_equals_a_band_mask(window):
    """One layer of attention against the textbook formula, keys seen counted by hand."""
    network = DENSE.model_copy(update={"layers": 1, "attention": Attention(heads=4, kv_heads=2, window=window)})
    model = build(network)
    taken = {}
    model.blocks[0].attention.register_forward_hook(lambda module, args, output: taken.update(x=args[0], y=output))
    model(torch.randint(V, (1, 17)))
    q, k, v = model.blocks[0].attention.qkv(taken["x"])[0].split((32, 16, 16), dim=-1)
    angle = torch.arange(17)[:, None] * 10_000.0 ** -(torch.arange(0, 8, 2) / 8)
    turn = torch.polar(torch.ones(17, 4), angle)

    def turned(x):
        z = torch.complex(x[:, :4], x[:, 4:]) * turn
        return torch.cat((z.real, z.imag), dim=-1)

    rows = []
    for head in range(4):
        queries = turned(q[:, 8 * head : 8 * head + 8])
        group = slice(8 * (head // 2), 8 * (head // 2) + 8)
        keys, out = turned(k[:, group]), []
        for i in range(17):
            near = slice(max(0, i - window + 1), i + 1)
            out.append(((keys[near] @ queries[i]) / 8**0.5).softmax(0) @ v[near, group])
        rows.append(torch.stack(out))
    expected = model.blocks[0].attention.out(torch.cat(rows, dim=-1))
    torch.testing.assert_close(taken["y"][0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("network", [DENSE, WINDOWED, MIXTURE], ids=["dense", "windowed", "mixture"])
@pytest.mark.parametrize("chunks", [[17], [1] * 17, [5, 7, 5], [16, 1], [4, 4, 1, 8]])
def test_a_cache_changes_nothing_however_the_tokens_arrive(network, chunks):
    model = build(network)
    ids_BT = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(1))
    cache = Cache(network, 5, 20)
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(7.0)  # what an earlier sequence left must not be seen
    parts, start = [], 0
    with torch.inference_mode():
        for length in chunks:
            positions_BT = None if start == 0 else torch.arange(start, start + length).expand(3, -1)
            parts.append(logits(model, ids_BT[:, start : start + length], positions_BT, cache=cache.rows(1, 4)))
            start += length
        torch.testing.assert_close(torch.cat(parts, dim=1), logits(model, ids_BT), atol=2e-5, rtol=1e-4)


def test_same_seed_same_weights_whatever_the_network_around_them():
    one, two, deeper = (
        Transformer(DENSE, V),
        Transformer(DENSE, V),
        Transformer(DENSE.model_copy(update={"layers": 3}), V),
    )
    for model, seed in ((one, 3), (two, 3), (deeper, 3)):
        model.init_weights(seed)
    for name, weight in one.named_parameters():
        assert torch.equal(weight, two.get_parameter(name))
        assert torch.equal(weight, deeper.get_parameter(name))
        if weight.dim() > 1:
            assert weight.abs().max() <= 3 * DENSE.init_std
            assert weight.std().item() == pytest.approx(DENSE.init_std, rel=0.15)
    two.init_weights(4)
    assert not torch.equal(one.embedding.weight, two.embedding.weight)


@pytest.mark.parametrize("network", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_bf16_stays_near_fp32_and_repeats_bit_for_bit(network):
    model = build(network)
    ids_BT = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(1))
    exact = logits(model, ids_BT).log_softmax(-1)
    model.compute_dtype = torch.bfloat16

    def run():
        model.zero_grad()
        scores = logits(model, ids_BT)
        assert scores.dtype == torch.bfloat16
        scores.float().log_softmax(-1)[..., 0].sum().backward()
        return scores, [weight.grad.clone() for weight in model.parameters()]

    (scores, gradients), (again, repeated) = run(), run()
    assert (scores.float().log_softmax(-1) - exact).abs().mean() < 0.05
    assert torch.equal(scores, again)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(gradients, repeated, strict=True))


def test_router_losses_are_means_over_layers_and_leave_padding_out():
    model = build(MIXTURE)
    ids_BT = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    documents_BT = torch.zeros(2, 9, dtype=torch.long)
    whole = model(ids_BT, None, documents_BT)
    assert whole.load_LE.sum(1).tolist() == [2 * 18] * 2
    torch.testing.assert_close(whole.aux, model(ids_BT).aux)
    documents_BT[:, 6:] = -1
    padded = model(ids_BT, None, documents_BT)
    torch.testing.assert_close(padded.aux, model(ids_BT[:, :6]).aux)
    assert torch.equal(padded.load_LE, model(ids_BT[:, :6]).load_LE)
    assert build(DENSE)(ids_BT).load_LE is None


AHEAD = Network(
    dim=32,
    layers=2,
    attention=Attention(heads=4, kv_heads=1, bias=True),
    hidden=48,
    multi_token=MultiToken(depth=2),
)


@pytest.mark.parametrize("normed", [False, True])
def test_multi_token_blocks_follow_the_published_formula(normed):
    """u_i = W [norm_h(h_i); norm_t(e_(i+k))], one ordinary block, its norm, the shared head (MiMo, section 2.2)."""
    model = build(AHEAD.model_copy(update={"multi_token": MultiToken(depth=2, normed=normed)}))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    ids_BT = torch.randint(V, (3, 11), generator=torch.Generator().manual_seed(1))
    output = model(ids_BT, drafts=True)
    torch.testing.assert_close(output.hidden_BTD, model(ids_BT).hidden_BTD)

    def rms(x, gain):
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain

    h_BTD = rms(output.state_BTD, model.norm.weight) if normed else output.state_BTD
    for k, (part, found) in enumerate(zip(model.multi_token, output.drafts, strict=True), 1):
        e_BTD = model.embedding.weight[ids_BT[:, k:]]
        both = torch.cat((rms(h_BTD[:, :-k], part.hidden_norm.weight), rms(e_BTD, part.token_norm.weight)), dim=-1)
        # a one-layer network whose embedding holds u as its rows runs the block and the norm
        alone = Transformer(AHEAD.model_copy(update={"layers": 1, "multi_token": None}), V)
        weights = {f"blocks.0.{name}": value for name, value in part.block.state_dict().items()}
        alone.load_state_dict(weights | {"norm.weight": part.norm.weight}, strict=False)
        B, T, _ = both.shape
        alone.embedding.weight = torch.nn.Parameter((both @ part.project.weight.T).flatten(0, 1))
        expected = alone(torch.arange(B * T).view(B, T)).hidden_BTD
        torch.testing.assert_close(found[:, :-k], expected, atol=1e-5, rtol=1e-4)
    model.zero_grad()
    (output.drafts[0][:, :-1] @ model.head_VD.T).logsumexp(-1).sum().backward()
    for name in ("embedding.weight", "head.weight", "blocks.0.attention.qkv.weight", "multi_token.0.project.weight"):
        assert model.get_parameter(name).grad.abs().sum() > 0, f"{name} gets no gradient from the first draft"


def test_multi_token_blocks_predict_from_the_token_before_theirs():
    """The first block's state at i changes with token i + 1 and not with token i + 2."""
    model = build(AHEAD)
    ids_BT = torch.arange(12)[None] % V
    for place, changes in ((6, True), (7, False)):
        other_BT = ids_BT.clone()
        other_BT[0, place] = 50
        one, two = model(ids_BT, drafts=True).drafts[0], model(other_BT, drafts=True).drafts[0]
        assert torch.allclose(one[0, 5], two[0, 5]) != changes


def test_multi_token_blocks_of_experts_balance_only_when_they_run():
    model = build(MIXTURE.model_copy(update={"multi_token": MultiToken()}))
    ids_BT = torch.randint(V, (2, 9))
    assert len(model.routers()) == 3
    assert model(ids_BT).load_LE.shape == (2, 4)
    assert model(ids_BT, drafts=True).load_LE.sum(1).tolist() == [36, 36, 36]


def test_first_layers_stay_dense_and_layer_norm_has_no_parameters():
    experts = Experts(count=4, top_k=2, hidden=24, first_dense=1)
    model = build(Network(dim=32, layers=3, hidden=40, attention=MIXTURE.attention, experts=experts, norm="layer"))
    names = {name for name, _ in model.named_parameters()}
    assert "blocks.0.feed_forward.gate_up.weight" in names
    assert "blocks.1.feed_forward.router.weight" in names
    assert not [name for name in names if "norm" in name]
    ids_BT = torch.randint(V, (2, 9))
    output = model(ids_BT)
    assert output.load_LE.shape == (2, 4)
    states = output.hidden_BTD
    torch.testing.assert_close(states.mean(-1), torch.zeros(2, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(states.var(-1, correction=0), torch.ones(2, 9), atol=1e-3, rtol=0)


def test_normal_weights_reach_further_than_truncated_ones():
    model = Transformer(DENSE.model_copy(update={"init": "normal"}), 2000)
    model.init_weights(0)
    assert model.embedding.weight.abs().max() > 3.5 * DENSE.init_std
    assert model.embedding.weight.std().item() == pytest.approx(DENSE.init_std, rel=0.03)


def steps_of_adam(width: int, mup: bool) -> dict[str, float]:
    """Mean size of what changed after 10 steps of Adam with the same data, at the logits and in the residual stream."""
    torch.manual_seed(0)
    attention = Attention(heads=width // 16, kv_heads=width // 16, head_dim=16)
    network = Network(
        dim=width, layers=2, attention=attention, hidden=2 * width, init_std=0.02, mup_base=32 if mup else None
    )
    model = Transformer(network, V)
    model.init_weights(0)
    groups = [{"params": [weight], "lr": 1e-2 / mup_width(name, network)} for name, weight in model.named_parameters()]
    adam = torch.optim.Adam(groups)
    ids_BT = torch.randint(V, (4, 33), generator=torch.Generator().manual_seed(1))

    def read():
        output = model(ids_BT)
        return output.hidden_BTD @ model.head_VD.T, output.state_BTD

    before = [value.detach() for value in read()]
    for _ in range(10):
        loss = F.cross_entropy(read()[0][:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {
        name: (value - start).abs().mean().item()
        for name, value, start in zip(("logits", "state"), read(), before, strict=True)
    }


def test_coordinates_move_alike_at_every_width_under_mup_and_not_without():
    """The slope of log2(mean change) against log2(width) (arXiv:2203.03466, appendix D)."""
    slopes = {}
    for mup in (True, False):
        small, large = steps_of_adam(64, mup), steps_of_adam(256, mup)
        slopes[mup] = {name: math.log2(large[name] / small[name]) / 2 for name in small}
    assert abs(slopes[True]["state"]) <= 0.1, slopes
    assert abs(slopes[True]["logits"]) <= 0.2, slopes  # what is left of the first weights' chance shrinks with width
    assert slopes[False]["logits"] > 0.4, slopes
    assert slopes[False]["state"] > 0.4, slopes
