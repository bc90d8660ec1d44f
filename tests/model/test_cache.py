"""The ring of a window against a full cache with a band mask, ragged rows, tokens taken back, constant memory."""

import random

import pytest
import torch

from glassbox.model import spans
from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, MultiToken, Network

W, V = 8, 50
NETWORK = Network(dim=16, layers=2, hidden=24, attention=Attention(heads=4, kv_heads=2, window=W))


def build(network: Network = NETWORK) -> Transformer:
    model = Transformer(network, V)
    model.init_weights(0)
    with torch.no_grad():  # larger weights than the usual first ones, so that differences show
        for weight in model.parameters():
            weight.mul_(5 if weight.dim() > 1 else 1.3)
    return model


def random_ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(length))


def filled(cache: Cache, value: float = 7.0) -> Cache:
    """What an earlier sequence left must not be seen."""
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(value)
    return cache


def fed(model: Transformer, cache: Cache, ids_BT: torch.Tensor, sizes: list[int], start: int = 0) -> torch.Tensor:
    """States after reading the tokens in chunks of these sizes; at position 0 the first one is read as new rows."""
    parts = []
    for size in sizes:
        positions_BT = torch.arange(start, start + size).expand(len(ids_BT), -1) if start else None
        parts.append(model(ids_BT[:, start : start + size], positions_BT, cache=cache).hidden_BTD)
        start += size
    return torch.cat(parts, dim=1)


def cut(length: int, size: int) -> list[int]:
    return [min(size, length - start) for start in range(0, length, size)]


@pytest.fixture(params=[4, 64], ids=["chunks", "dense"])
def chunk(request, monkeypatch):
    """Attention over what is stored in chunks of 4 queries, or against a dense mask, which is for few tokens."""
    monkeypatch.setattr(spans, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("length", [W - 1, W, W + 1, 2 * W, 3 * W + 7])
@pytest.mark.parametrize("size", [1, 3, W - 1, W, W + 1, 4 * W])
@pytest.mark.parametrize("spare", [0, 3])
@torch.inference_mode()
def test_a_ring_equals_a_full_cache_with_a_band_mask(length, size, spare):
    model, ids_BT = build(), random_ids(2, length + 20)
    ring, full = (filled(Cache(NETWORK, 2, 100, spare=s)) for s in (spare, 100))
    assert (ring.columns, full.columns) == (W + spare, 100)
    sizes = cut(length, size) + [1] * 20
    by_ring, by_full = (fed(model, cache, ids_BT, sizes) for cache in (ring, full))
    torch.testing.assert_close(by_ring, by_full, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_ring, model(ids_BT).hidden_BTD, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("spare", [0, 2, 100])
@pytest.mark.parametrize("seed", range(4))
@torch.inference_mode()
def test_rows_of_different_lengths_and_their_padding(spare, seed):
    """Random chunks, each row's own number of tokens in them, some rows with none at all."""
    chance, model, ids_BT = random.Random(seed), build(), random_ids(4, 60)
    expected, cache = model(ids_BT).hidden_BTD, filled(Cache(NETWORK, 6, 100, spare=spare)).rows(1, 5)
    done = [0] * 4
    while max(done) < 60:
        width = chance.choice([1, 2, 3, W - 1, W, W + 1, 2 * W + 3])
        counts = [min(chance.choice([0, 1, width, chance.randint(0, width)]), 60 - n) for n in done]
        if not any(counts):
            continue
        positions_BT, chunk_BT = torch.full((4, width), -1), torch.zeros(4, width, dtype=torch.long)
        for i, (n, count) in enumerate(zip(done, counts, strict=True)):
            positions_BT[i, :count] = torch.arange(n, n + count)
            chunk_BT[i, :count] = ids_BT[i, n : n + count]
        found = model(chunk_BT, positions_BT, cache=cache).hidden_BTD
        assert found.isfinite().all()
        for i, (n, count) in enumerate(zip(done, counts, strict=True)):
            torch.testing.assert_close(found[i, :count], expected[i, n : n + count], atol=1e-5, rtol=1e-5)
        done = [n + count for n, count in zip(done, counts, strict=True)]


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_position_p_is_in_column_p_mod_the_window(size):
    network = NETWORK.model_copy(update={"attention": Attention(heads=4, kv_heads=2, window=4)})
    cache = Cache(network, 1, 100)
    for start in range(0, 6, size):
        positions_BT = torch.arange(start, min(6, start + size))[None]
        new = positions_BT[..., None, None].float().expand(-1, -1, 2, 4)
        cache.extend(0, new, new, cache.enter(positions_BT if start else None, positions_BT.shape[1]))
    assert cache.keys[0][0, :, 0, 0].tolist() == [4, 5, 2, 3]
    assert cache.values[0][0, :, 1, 3].tolist() == [4, 5, 2, 3]


def test_memory_is_constant_beyond_the_window():
    def size(capacity: int) -> int:
        cache = Cache(NETWORK, 3, capacity)
        return sum(tensor.untyped_storage().nbytes() for tensor in (*cache.keys, *cache.values))

    assert size(W) == size(10 * W) == 2 * size(W // 2)


@pytest.mark.parametrize("spare", [1, 3, 100])
@torch.inference_mode()
def test_tokens_can_be_taken_back(spare):
    """Drafts are read, some are rejected, and the text goes on over them: as if they had never been."""
    chance, model, ids_BT = random.Random(spare), build(), random_ids(2, 60)
    expected, cache = model(ids_BT).hidden_BTD, Cache(NETWORK, 2, 100, spare=spare)
    done_B = torch.tensor([5, 2])
    positions_BT = torch.tensor([[0, 1, 2, 3, 4], [0, 1, -1, -1, -1]])
    model(ids_BT[:, :5], positions_BT, cache=cache)
    drafts = min(spare, 4)
    for _ in range(14):
        accepted_B = torch.tensor([chance.randint(0, drafts) for _ in range(2)])
        positions_BT = done_B[:, None] + torch.arange(1 + drafts)
        chunk_BT = ids_BT.gather(1, positions_BT)
        wrong_BT = torch.arange(1 + drafts) > accepted_B[:, None]
        found = model(torch.where(wrong_BT, (chunk_BT + 1) % V, chunk_BT), positions_BT, cache=cache).hidden_BTD
        for row in range(2):
            kept = slice(0, 1 + int(accepted_B[row]))
            torch.testing.assert_close(found[row, kept], expected[row, positions_BT[row, kept]], atol=1e-5, rtol=1e-5)
        done_B = done_B + 1 + accepted_B
        if int(done_B.max()) + drafts >= 60:
            break


def test_a_copied_row_goes_on_alone():
    model, ids_BT, cache = build(), random_ids(1, 40), Cache(NETWORK, 3, 100, spare=2)
    with torch.inference_mode():
        fed(model, cache.rows(0, 1), ids_BT, [20, 1, 1])
        assert cache.holds(20, 22)
        assert not cache.holds(19, 22)
        cache.copy(0, 2, 20)
        filled(cache.rows(0, 2))
        found = fed(model, cache.rows(2, 3), ids_BT, [1] * 20, start=20)
        torch.testing.assert_close(found, model(ids_BT).hidden_BTD[:, 20:], atol=1e-5, rtol=1e-5)


def test_positions_beyond_the_capacity_are_refused():
    cache = Cache(NETWORK.model_copy(update={"attention": Attention(heads=4, kv_heads=2)}), 1, 4)
    with pytest.raises(ValueError, match="position 4 is beyond a cache of 4 tokens"):
        cache.enter(torch.tensor([[4]]), 1)
    with pytest.raises(ValueError, match="5 tokens do not fit"):
        cache.enter(None, 5)


def test_blocks_that_predict_ahead_have_layers_of_their_own():
    network = NETWORK.model_copy(update={"multi_token": MultiToken(depth=3)})
    cache = Cache(network, 2, 10)
    assert len(cache.keys) == len(cache.values) == NETWORK.layers + 3


AHEAD = NETWORK.model_copy(update={"multi_token": MultiToken(depth=2)})


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("sizes", [[1] * 40, [7, 1, 1, 1, 20, 1, 9], [40], [12, 13, 15]], ids=str)
@torch.inference_mode()
def test_drafting_through_the_cache_equals_the_whole_forward(sizes):
    """Each block reads its positions behind the network, in chunks of its own keys and values."""
    model, ids_BT = build(AHEAD), random_ids(2, 43)
    whole, cache, start = model(ids_BT, drafts=True), filled(Cache(AHEAD, 2, 100)), 0
    for size in sizes:
        span = slice(start, start + size)
        positions_BT = torch.arange(start, start + size).expand(2, -1) if start else None
        state_BTD = model(ids_BT[:, span], positions_BT, cache=cache).state_BTD
        for k in range(2):
            next_ids_BT = ids_BT[:, start + k + 1 : start + size + k + 1]
            found = model.draft(k, state_BTD, next_ids_BT, positions_BT, cache)
            torch.testing.assert_close(found, whole.drafts[k][:, span], atol=1e-5, rtol=1e-5)
        start += size


@pytest.mark.parametrize("spare", [2, 100])
@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_drafts_of_ragged_rows_can_be_taken_back(spare, seed):
    """Every round a row accepts some drafts and rejects the rest: what the rejected left in any layer is written over
    in the next round, as the drafting loop does it (MiMo, arXiv:2505.07608, section 2.2)."""
    chance, model, ids_BT = random.Random(seed), build(AHEAD), random_ids(2, 60)
    whole, cache = model(ids_BT, drafts=True), Cache(AHEAD, 2, 100, spare=spare)
    done_B = torch.tensor([9, 3])
    positions_BT = torch.arange(9).where(torch.arange(9) < done_B[:, None], -1)
    state_BTD = model(ids_BT[:, :9], positions_BT, cache=cache).state_BTD
    for k in range(2):
        model.draft(k, state_BTD, ids_BT[:, k + 1 : k + 10], positions_BT, cache)
    while int(done_B.max()) < 50:
        accepted_B = torch.tensor([chance.randint(1, 3) for _ in range(2)])
        positions_BT = done_B[:, None] + torch.arange(3)
        wrong_BT = torch.arange(3) >= accepted_B[:, None]

        def read(shift, positions_BT=positions_BT, wrong_BT=wrong_BT):
            """The tokens `shift` places on, false ones where the drafts are rejected."""
            true_BT = ids_BT.gather(1, positions_BT + shift)
            return torch.where(wrong_BT, (true_BT + 1) % V, true_BT)

        output = model(read(0), positions_BT, cache=cache)
        found = [
            output.hidden_BTD,
            *(model.draft(k, output.state_BTD, read(k + 1), positions_BT, cache) for k in (0, 1)),
        ]
        for mine, other in zip(found, (whole.hidden_BTD, *whole.drafts), strict=True):
            for row in range(2):
                kept = positions_BT[row, : int(accepted_B[row])]
                torch.testing.assert_close(mine[row, : len(kept)], other[row, kept], atol=1e-5, rtol=1e-5)
        done_B = done_B + accepted_B
