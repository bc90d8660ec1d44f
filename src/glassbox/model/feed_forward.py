"""The dense feed-forward: SwiGLU (arXiv:2002.05202).

Letters: B batch, T tokens of a row, D model width, H inner width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from glassbox.model.layers import Linear


def swiglu(gate_up: Tensor) -> Tensor:
    """(..., 2H), gate first -> (..., H): silu(gate) * up."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class FeedForward(nn.Module):
    """x_BTD -> (B, T, D): down(silu(gate x) * up x), with gate and up in one product."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate_up = Linear(dim, 2 * hidden)
        self.down = Linear(hidden, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x_BTD)))
