"""The leaf layers. Weights are kept in fp32 and cast to the activations' type where they are used.

Letters: B batch, T tokens of a row, D width in, H width out.
"""

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
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(dtype)


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
