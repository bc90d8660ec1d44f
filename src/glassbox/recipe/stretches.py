"""How a pipeline divides a network: which layers make which stage, and which process holds which stages."""

from itertools import accumulate, pairwise

from glassbox.errors import RequestError
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
