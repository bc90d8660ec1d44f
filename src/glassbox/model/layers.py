"""The leaf layers. Weights are kept in fp32 and cast to the activations' type where they are used.

Letters: B batch, T tokens of a row, D width in, H width out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassbox.recipe.network import Network


class Linear(nn.Module):
    """x (..., D) -> (..., H); the product runs in x's type whatever the type of the weight."""

    def __init__(self, width_in: int, width_out: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class RMSNorm(nn.Module):
    """x (..., D) -> (..., D) in `dtype`: x / sqrt(mean(x^2) + eps) * gain, computed in fp32 (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _RmsNorm.apply(x.float(), self.weight.float(), self.eps, dtype)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(dtype)


class _RmsNorm(torch.autograd.Function):
    """The same for training on a CPU, where torch has no fused kernel for it: it goes over memory half as often and
    keeps nothing but its input and a number per row (a step of a small network in bf16 takes 6 to 15 % less)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        return torch.mul(x * scale, gain, out=torch.empty(x.shape, dtype=dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, gain, scale = ctx.saved_tensors
        normed = x * scale
        grad_gain = (grads[0] * normed).flatten(0, -2).sum(0)
        grad = grads[0] * gain
        along = torch.linalg.vecdot(grad, normed).unsqueeze(-1).div_(-x.shape[-1])
        return grad.addcmul_(normed, along).mul_(scale), grad_gain, None, None


class LayerNorm(nn.Module):
    """x (..., D) -> (..., D) in `dtype`: (x - mean) / sqrt(variance + eps), no parameters, computed in fp32 (OLMo)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return F.layer_norm(x.float(), (self.width,), eps=self.eps).to(dtype)


def norm(network: Network) -> RMSNorm | LayerNorm:
    """The norm of the residual stream that the network asks for."""
    return (RMSNorm if network.norm == "rms" else LayerNorm)(network.dim, network.norm_eps)
