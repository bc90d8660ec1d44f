"""The norms against torch's own formulas."""

import pytest
import torch
import torch.nn.functional as F

from glassbox.model.layers import LayerNorm, RMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 8), (2, 5, 24), (3, 4, 2, 7)])
def test_rms_norm_equals_torchs_with_its_gradients(shape, dtype):
    norm = RMSNorm(shape[-1], 1e-5)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(norm.weight, generator=generator)
    x = (3 * torch.randn(shape, generator=generator)).requires_grad_()
    grad = torch.randn(shape, generator=generator).to(dtype)
    ours, theirs = norm(x, dtype), F.rms_norm(x, shape[-1:], norm.weight, 1e-5).to(dtype)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(norm(x, dtype), theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, (x, norm.weight), grad),
        torch.autograd.grad(theirs, (x, norm.weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_rms_norm_of_a_row_of_zeros_is_zero():
    norm = RMSNorm(8, 1e-5)
    torch.nn.init.ones_(norm.weight)
    x = torch.zeros(2, 8, requires_grad=True)
    norm(x, torch.float32).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_layer_norm_has_mean_zero_and_variance_one():
    x = torch.randn(4, 16) * 5 + 3
    y = LayerNorm(16, 1e-5)(x, torch.float32)
    torch.testing.assert_close(y.mean(-1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(4), atol=1e-4, rtol=0)
