"""What a network or a stage cannot be spread over: said when the recipe is read, before anything is started."""

from collections.abc import Iterator, Sequence

from glassbox.recipe.loop import Parallel
from glassbox.recipe.network import Network

ANY = ("replicate", "shard", "tensor", "context", "expert", "pipeline")
"""Dimensions of a plan."""


def parallel_error(network: Network, plan: Parallel, contexts: Sequence[int]) -> str | None:
    """Why a network cannot be trained under a plan on rows of these lengths, in a sentence; None if it can."""
    return next(_errors(network, plan, contexts), None)


def _errors(network: Network, plan: Parallel, contexts: Sequence[int]) -> Iterator[str]:
    attention, experts = network.attention, network.experts
    columns = plan.tensor * plan.context
    for what, heads in (("heads", attention.heads), ("kv_heads", attention.kv_heads)):
        if heads % columns:
            yield (
                f"loop.parallel: {what} {heads} cannot be shared out among tensor {plan.tensor} x context "
                f"{plan.context} processes; choose dimensions whose product divides it"
            )
    if network.dense_layers and network.hidden and network.hidden % plan.tensor:
        yield f"loop.parallel: hidden {network.hidden} cannot be shared out among tensor {plan.tensor} processes"
    if attention.qk_norm == "whole" and plan.tensor > 1:
        yield "loop.parallel: qk_norm whole spans all heads, which tensor shares out; set tensor to 1"
    if experts is None and plan.expert > 1:
        yield f"loop.parallel: expert {plan.expert} shares out experts, and the network has none; set expert to 1"
    if experts is not None:
        if experts.count % plan.expert:
            yield f"loop.parallel: {experts.count} experts cannot be shared out among expert {plan.expert} processes"
        if experts.choice == "expert" and (columns > 1 or plan.expert > 1):
            yield (
                "loop.parallel: experts that choose their tokens choose among whole rows on one process; set tensor, "
                "context and expert to 1"
            )
    for context in contexts:
        if context % columns:
            yield (
                f"loop.parallel: rows of {context} tokens cannot be cut into tensor {plan.tensor} x context "
                f"{plan.context} equal parts"
            )
    if network.layers < plan.stages:
        yield (
            f"loop.parallel: {network.layers} layers cannot fill {plan.stages} stages (pipeline {plan.pipeline} with "
            f"schedule {plan.schedule}); lower pipeline"
        )


def refused(plan: Parallel, dimensions: Sequence[str], why: str) -> str | None:
    """The sentence about the first of these dimensions that a plan asks more than one process of, if there is one."""
    for name in dimensions:
        if getattr(plan, name) > 1:
            return f"loop.parallel: {name} {getattr(plan, name)} is not for this stage: {why}; leave it out"
    return None
