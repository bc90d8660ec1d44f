"""The network against transformers' own classes, and its own promises about packing, windows and caches."""

import pytest
import torch
import torch.nn.functional as F

from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network

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
