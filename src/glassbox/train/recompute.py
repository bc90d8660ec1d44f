"""Activation checkpointing: blocks that keep less in the forward pass and compute it again in the backward pass.

Nothing in a block is random and every product is repeated with the same operands, so gradients are the same bit for bit
(arXiv:1604.06174; selective: arXiv:2205.05198).
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from glassbox.model.transformer import Transformer

KEPT = (
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_mm", "aten::_scaled_dot_product"),
    *("flex_attention", "glassbox::"),
)
"""Beginnings of the names of operators whose outputs selective recomputation keeps: products, attention, experts."""


def all_blocks(model: Transformer) -> list[nn.Module]:
    """The network's blocks, those of multi-token prediction after them."""
    return [*model.blocks, *(ahead.block for ahead in model.multi_token)]


def recompute_blocks(model: Transformer, how: str) -> None:
    """Make every block compute again what `how` (none, selective, full) does not keep, in place."""
    for block in all_blocks(model):
        block.__dict__.pop("forward", None)
        if how != "none":
            block.forward = partial(_recomputed, block, how)


def _recomputed(block: nn.Module, how: str, *inputs: Any) -> Any:
    plain = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return plain(*inputs)
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(plain, *inputs, **settings)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = str(getattr(operator, "name", str)())
    kept = name.startswith(KEPT)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
