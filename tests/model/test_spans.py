"""Attention over stretches of keys against a dense mask: values, gradients, memory, operations, block masks."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from glassbox.model import spans
from glassbox.model.attention import attend, share
from glassbox.recipe.network import Attention, Network

CPU = torch.device("cpu")
CASES = [  # tokens, window, mean length of a document
    (1, None, None),
    (63, 5, 9),
    (64, None, 20),
    (65, 1, None),
    (130, None, None),
    (150, 40, 20),
    (200, 20, 90),
    (256, 128, None),
    (300, 300, 50),
    (300, None, 40),
    (320, 65, 1),
]
HEADS = [(4, 4), (6, 2), (3, 1)]


def network(window: int | None, H_K: tuple[int, int], d: int = 8) -> Network:
    attention = Attention(heads=H_K[0], kv_heads=H_K[1], head_dim=d, window=window)
    return Network(dim=16, layers=1, hidden=8, attention=attention)


def documents(rows: int, T: int, mean: int | None) -> torch.Tensor | None:
    if mean is None:
        return None
    chance_BT = torch.rand(rows, T, generator=torch.Generator().manual_seed(T))
    number_BT = (chance_BT < 1 / mean).cumsum(dim=1)
    number_BT[0, T - T // 5 :] = -1  # padding
    return number_BT


def dense(q, k, v, window, documents_BT):
    """The textbook: every score, then a mask from the definition."""
    B, T, H, d = q.shape
    order = torch.arange(T)
    distance = order[:, None] - order
    seen = ((distance >= 0) & (distance < (window or T))).expand(B, T, T)
    if documents_BT is not None:
        seen = seen & (documents_BT[:, :, None] == documents_BT[:, None, :])
    k, v = (x.repeat_interleave(H // x.shape[2], dim=2) for x in (k, v))
    score = torch.einsum("bthd,bshd->bhts", q, k) * d**-0.5
    return torch.einsum("bhts,bshd->bthd", score.masked_fill(~seen[:, None], -torch.inf).softmax(-1), v)


def heads(B, T, H, K, d, dtype=torch.float32):
    generator = torch.Generator().manual_seed(T)
    return [torch.randn(B, T, n, d, generator=generator, dtype=torch.float32).to(dtype) for n in (H, K, K)]


def gradients(function, inputs, probe):
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad((y.float() * probe).sum(), leaves)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("H_K", HEADS, ids=str)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "again"])
def test_values_and_gradients_equal_a_dense_mask(case, H_K, kept, monkeypatch):
    T, window, mean = case
    monkeypatch.setattr(spans, "KEPT_PER_QUERY", 100 if kept else 0)
    documents_BT = documents(3, T, mean)
    inputs, probe = heads(3, T, *H_K, 8), torch.randn(3, T, H_K[0], 8)
    chunks = spans.chunked(spans.of_rows(T, window, documents_BT, CPU), network(window, H_K), keep=True)
    assert (chunks.kept > 0) == kept
    ours = gradients(lambda q, k, v: spans.attend_in_chunks(q, k, v, chunks), inputs, probe)
    theirs = gradients(lambda q, k, v: dense(q, k, v, window, documents_BT), inputs, probe)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("case", CASES[3:7], ids=str)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "again"])
def test_bf16_stays_near_fp32(case, kept, monkeypatch):
    T, window, mean = case
    monkeypatch.setattr(spans, "KEPT_PER_QUERY", 100 if kept else 0)
    documents_BT = documents(2, T, mean)
    inputs, probe = heads(2, T, 4, 2, 8, torch.bfloat16), torch.randn(2, T, 4, 8)
    chunks = spans.chunked(spans.of_rows(T, window, documents_BT, CPU), network(window, (4, 2)), keep=True)
    ours = gradients(lambda q, k, v: spans.attend_in_chunks(q, k, v, chunks), inputs, probe)
    exact = gradients(lambda q, k, v: dense(q, k, v, window, documents_BT), [x.float() for x in inputs], probe)
    for mine, other in zip(ours, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.float() - other).norm() <= 0.02 * other.norm()


def test_rows_go_one_by_one_where_their_documents_differ():
    T = 512
    far, near = torch.zeros(1, T), torch.arange(T)[None] // 32
    rows = spans.of_rows(T, None, torch.cat((far, near, near)), CPU)
    apart, alike = spans.plan(rows, heads=16), spans.plan(rows, heads=1)
    assert (sorted(set(apart[:, 0].tolist())), set(alike[:, 0].tolist())) == ([0, 1, 2], {-1})
    assert len(apart) == 3 * len(alike) == 3 * T // spans.CHUNK


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("case", [*CASES, (700, 200, 100), (1000, None, None)], ids=str)
def test_block_masks_equal_those_made_from_a_dense_mask(case):
    T, window, mean = case
    documents_BT = documents(3, T, mean)
    rows = spans.of_rows(T, window, documents_BT, CPU)
    ours = spans.block_mask(rows, T)
    theirs = create_block_mask(ours.mask_mod, len(rows.first_NT), None, T, T, device="cpu")
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    q, k, v = heads(3, T, 6, 2, 16)
    expected = dense(q, k, v, window, documents_BT)
    torch.testing.assert_close(attend(q, k, v, ours), expected, atol=2e-6, rtol=1e-4)
    bias = spans.dense_bias(rows, T, torch.float32)
    torch.testing.assert_close(attend(q, k, v, bias), expected, atol=2e-6, rtol=1e-4)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(given):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return given


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("window", "mean"), [(None, None), (100, None), (None, 300), (100, 300)])
def test_nothing_as_large_as_the_row_squared_is_made(dtype, window, mean):
    T, H, d = 2048, 2, 8
    settings = network(window, (H, 1), d)
    inputs, documents_BT = heads(1, T, H, 1, d, dtype), documents(1, T, mean)

    def forward_and_backward(function):
        leaves = [x.requires_grad_() for x in inputs]
        with Largest() as largest:
            function(*leaves).sum().backward()
        return largest.elements

    def row(q, k, v):
        seen = share(settings, torch.zeros(1, T, dtype=torch.long), None, documents_BT, None, dtype).seen
        return attend(q, k, v, seen)

    assert forward_and_backward(row) < T * T / 16
    chunks = spans.chunked(spans.of_rows(T, window, documents_BT, CPU), settings, keep=True)
    assert chunks.kept == 0
    common = (chunks.spans.first_NT, chunks.spans.last_NT, chunks.plan)
    with torch.no_grad(), Largest() as largest:  # inside the operator, which the mode does not see from outside
        y, weights = spans.attend._init_fn(*inputs, *common, 0)
        spans.attend_backward._init_fn(y, *inputs, weights, *common)
    assert largest.elements <= H * spans.CHUNK * T


def test_operations_are_counted():
    T, window, (B, H, K, d) = 200, 30, (3, 4, 2, 16)
    chunks = spans.chunked(spans.of_rows(T, window, None, CPU), network(window, (H, K), d), keep=True)
    q, k, v = (x.requires_grad_() for x in heads(B, T, H, K, d))
    with FlopCounterMode(display=False) as counter:
        spans.attend_in_chunks(q, k, v, chunks).sum().backward()
    scores = B * H * (64 * 64 + 2 * 64 * (64 + 29) + 8 * (8 + 29))
    assert chunks.kept
    assert counter.get_total_flops() == (2 + 4) * 2 * d * scores


def test_the_operator_is_registered_in_full():
    rows = spans.of_rows(100, 20, None, CPU)
    chunks = spans.chunked(rows, network(20, (4, 2)), keep=True)
    inputs = [x.requires_grad_() for x in heads(2, 100, 4, 2, 8)]
    arguments = (*inputs, rows.first_NT, rows.last_NT, chunks.plan, chunks.kept)
    checks = torch.library.opcheck(torch.ops.glassbox.attend.default, arguments)
    assert set(checks.values()) == {"SUCCESS"}


def test_the_form_suits_device_and_shapes():
    def seen(T, window=None, mean=None, dtype=torch.float32):
        return share(
            network(window, (2, 1)), torch.zeros(2, T, dtype=torch.long), None, documents(2, T, mean), None, dtype
        ).seen

    assert seen(1) is seen(1, dtype=torch.bfloat16) is seen(100) is seen(100, window=100) is seen(2000) is None
    for chunks in (seen(300), seen(100, dtype=torch.bfloat16), seen(100, window=99), seen(100, mean=40)):
        assert isinstance(chunks, spans.Chunks)
