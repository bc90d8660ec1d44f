"""Products in float8 are those of operands rounded to float8, in both directions; a network learns with them.

A CPU has no float8 products; torchao's emulation rounds as the device does and multiplies in higher precision.
"""

import pytest
import torch

import glassbox.train.float8 as float8
from glassbox.model.layers import Linear
from glassbox.train.float8 import compute_in_float8, refusal
from glassbox.train.losses import next_token
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from tests.train.conftest import build, counting_rows

pytest.importorskip("torchao")


def rounded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The nearest values that the type holds once the largest is its largest."""
    scale = torch.finfo(dtype).max / x.float().abs().max()
    return (x.float() * scale).to(dtype).float() / scale


def test_each_product_takes_rounded_operands():
    model = build(experts=False)
    plain = model.blocks[0].attention.qkv
    weight = plain.weight.detach().clone()
    assert compute_in_float8(model, emulate=True) == 8
    layer = model.blocks[0].attention.qkv
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(3, 32, 32, generator=draws).bfloat16().requires_grad_()
    y = layer(x)
    grad = torch.randn(y.shape, generator=draws).bfloat16()
    y.backward(grad)

    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    x8, w8, g8 = rounded(x.detach(), e4m3), rounded(weight, e4m3), rounded(grad, e5m2)
    assert y.dtype == torch.bfloat16
    assert layer.weight is plain.weight
    close = {"atol": 1e-2, "rtol": 1e-2}  # the sum's rounding to bf16
    torch.testing.assert_close(y.float(), x8 @ w8.T, **close)
    torch.testing.assert_close(x.grad.float(), g8 @ w8, **close)
    torch.testing.assert_close(layer.weight.grad, g8.flatten(0, 1).T @ x8.flatten(0, 1), atol=0.1, rtol=1e-2)
    assert layer.weight.grad.dtype == torch.float32


def test_the_gradient_of_a_network_is_near_that_of_bf16():
    rows, grads = to_rows(counting_rows(1)), []
    for emulate in (False, True):
        model = build(experts=False)
        names = list(model.state_dict())
        if emulate:
            compute_in_float8(model, emulate=True)
        assert list(model.state_dict()) == names
        model.compute_dtype = torch.bfloat16
        accumulate(model, rows, next_token, labelled_tokens(rows), 6)
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert not torch.equal(*grads)
    assert float(torch.cosine_similarity(*grads, dim=0)) > 0.98


def test_what_stays_as_it_is():
    """Widths that no hardware takes once they are cut, experts, routers and the head."""
    assert compute_in_float8(build(experts=False), tensor=3, emulate=True) == 0
    cut = build(experts=False)
    assert compute_in_float8(cut, tensor=2, emulate=True) == 4 + 2  # feed_forward 48 / 2 is no multiple of 16
    mixture = build(experts=True, ahead=1)
    assert compute_in_float8(mixture, emulate=True) == 2 * 3
    left = [name for name, module in mixture.named_modules() if isinstance(module, Linear)]
    assert left == ["head", "multi_token.0.project"]


def test_why_a_device_is_refused(monkeypatch):
    assert refusal("cpu") == "a CPU has no float8 products"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert refusal("cuda") == "NVIDIA A100 has no float8 products, Hopper is the first that does"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert refusal("cuda") is None
    monkeypatch.setattr(float8.importlib.util, "find_spec", lambda name: None)
    assert "torchao is not installed" in refusal("cuda")
