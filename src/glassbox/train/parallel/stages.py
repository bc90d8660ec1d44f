"""Layers cut into the stretches that the processes of a pipeline hold.

A stretch is a `Transformer` without the rest of the network, whose tensors keep the names that the whole network has
for them. The first has the embedding, the last the final norm, the head and the multi-token blocks; where those need
the embedding too, the last stretch has a copy of it, which `pipeline.py` keeps equal (Megatron-LM, arXiv:1909.08053).
"""

import copy
from itertools import accumulate, pairwise

import torch
from torch import nn

from glassbox.errors import RequestError
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import V_SHAPED, Parallel
from glassbox.recipe.network import Network
from glassbox.recipe.size import products


def stage_numbers(plan: Parallel, index: int) -> list[int]:
    """The stages of the `index`-th process of the pipeline, in the order of the network."""
    if plan.stages == plan.pipeline:
        return [index]
    return [index, plan.stages - 1 - index if plan.schedule in V_SHAPED else index + plan.pipeline]


def division(network: Network, vocab_size: int, stages: int) -> list[range]:
    """The layers of each stage, at least one: the division with the least sum of squared costs, so that stages take
    about the same time.

    A layer costs the weights of the products that a token passes through; head and multi-token blocks, which weigh as
    much as a layer or two, are added to the last stage. Raises RequestError if there are fewer layers than stages.
    """
    costs, end = products(network, vocab_size)
    if len(costs) < stages:
        raise RequestError(f"loop.parallel cuts {len(costs)} layers into {stages} stages: lower `pipeline`")
    upto = [0, *accumulate(costs)]
    best: list[tuple[float, list[int]]] = [(0.0, [0])] + [(float("inf"), [])] * len(costs)
    for stage in range(stages):
        extra = end if stage == stages - 1 else 0
        best = [
            min((best[start][0] + (upto[stop] - upto[start] + extra) ** 2, [*best[start][1], stop]) for start in starts)
            if (starts := range(stop))
            else (float("inf"), [])
            for stop in range(len(costs) + 1)
        ]
    ends = best[-1][1]
    return [range(start, stop) for start, stop in pairwise(ends)]


def embedded_twice(network: Network, stages: int) -> bool:
    """Whether the last stage has a copy of the embedding."""
    return stages > 1 and (network.tie_embeddings or network.multi_token is not None)


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
