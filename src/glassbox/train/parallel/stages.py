"""Layers cut into the stretches that the processes of a pipeline hold.

A stretch is a `Transformer` without the rest of the network, whose tensors keep the names that the whole network has
for them. The first has the embedding, the last the final norm, the head and the multi-token blocks; where those need
the embedding too, the last stretch has a copy of it, which `pipeline.py` keeps equal (Megatron-LM, arXiv:1909.08053).
"""

import copy

import torch
from torch import nn

from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Parallel
from glassbox.recipe.stretches import division, embedded_twice, stage_numbers


def stretch(model: Transformer, layers: range, first: bool, last: bool) -> Transformer:
    """A network of some of the model's layers, made of the very modules of the model."""
    with torch.device("meta"):
        part = Transformer(model.network, model.vocab_size)
    part.compute_dtype, part.columns, part.ends = model.compute_dtype, model.columns, last
    part.blocks = nn.ModuleList()
    for layer in layers:
        part.blocks.add_module(str(layer), model.blocks[layer])
    part.head = model.head if last else None
    part.multi_token = model.multi_token if last else nn.ModuleList()
    if last:
        part.norm = model.norm
    else:
        del part.norm
    if first:
        part.embedding = model.embedding
    elif last and embedded_twice(model.network, 2):
        part.embedding = copy.deepcopy(model.embedding)
    else:
        del part.embedding
    return part


def stretches(model: Transformer, plan: Parallel, index: int) -> list[Transformer]:
    """What the `index`-th process of the pipeline holds of the model."""
    layers = division(model.network, model.vocab_size, plan.stages)
    return [
        stretch(model, layers[number], first=number == 0, last=number == plan.stages - 1)
        for number in stage_numbers(plan, index)
    ]
