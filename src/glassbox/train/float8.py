"""Matrix products in float8, through torchao.

Each product of a block's linear layers, forward and both of the backward pass, takes its two operands in float8 (e4m3,
gradients e5m2 as torchao's default recipe has it) with one scale a tensor, found from the tensor as it is (dynamic
tensorwise scaling; arXiv:2209.05433 has the formats). It sums in fp32 and gives bf16. Weights, their gradients and
moments stay fp32; attention's own products, experts, routers, embedding and head compute as under bf16.
"""

import importlib.util

import torch
from torch import nn

from glassbox.model.layers import Linear
from glassbox.model.transformer import Transformer
from glassbox.train.recompute import all_blocks

LANES = 16
"""Both widths of a weight must be multiples of this for the hardware's float8 products."""


def refusal(device: str) -> str | None:
    """Why float8 products cannot run on a device; None if they can."""
    if device == "cpu":
        return "a CPU has no float8 products"
    if torch.cuda.get_device_capability() < (9, 0):
        return f"{torch.cuda.get_device_name()} has no float8 products, Hopper is the first that does"
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed (pip install 'glassbox-llm[float8]')"
    return None


def compute_in_float8(model: Transformer, tensor: int = 1, emulate: bool = False) -> int:
    """Make the linear layers of all blocks compute in float8, in place and under their old names; returns how many.

    It comes before the model is placed. A layer whose width is no multiple of 16 once it is cut into `tensor` parts is
    left as it is. `emulate` rounds to float8 and multiplies in higher precision, for devices without float8.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    changed = 0
    for block in all_blocks(model):
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, Linear) and not any(width % (LANES * tensor) for width in layer.weight.shape):
                    setattr(parent, name, convert_to_float8_training(_plain(layer), config=config))
                    changed += 1
    return changed


def _plain(layer: Linear) -> nn.Linear:
    """The same weights in PyTorch's own class, which is what torchao takes."""
    width_out, width_in = layer.weight.shape
    plain = nn.Linear(width_in, width_out, bias=False, device="meta")
    plain.weight = layer.weight
    plain.register_parameter("bias", layer.bias)
    return plain
