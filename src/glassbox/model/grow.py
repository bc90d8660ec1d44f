"""First weights from another model: the same network, a deeper one, or one with experts for its dense feed-forward.

Pure functions from weights to weights. Whatever they add leaves the computed function as it was, as far as it can.

Letters: E experts, D model width, H inner width.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.model.transformer import named_generator
from glassbox.recipe.network import Network

State = Mapping[str, Tensor]
"""Weights by name, as `Transformer.state_dict` has them."""

TRAINING_ONLY = {"experts.balance_loss", "experts.sequence_loss", "experts.z_loss", "init", "init_std"}
"""Settings that say how a network is trained and not what it computes."""
FREE = TRAINING_ONLY | {"attention.window", "attention.rope_base"}
"""Settings that fit the same weights: how far and how training looks at them."""
NEW_STD = 0.02
"""Deviation of what sparse upcycling draws anew: routers, and the noise in experts (OLMoE's script)."""


def differences(one: Network, other: Network) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, by dotted name, with both values (None: absent); a default width of heads counts as the
    width it is, and a part that only one has is one difference."""
    first, second = (network.model_dump() | {"head_dim": network.head_dim} for network in (one, other))
    return {name: values for name, values in _differ(first, second) if name != "attention.head_dim"}


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in one.keys() | other.keys():
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from _differ(first, second, f"{prefix}{name}.")
        elif first != second:
            yield prefix + name, (first, second)


def grow(state: State, start: Network, target: Network, *, seed: int, noise: float = 0.0) -> dict[str, Tensor]:
    """Weights for `target` from those of `start`: deepened if it has more layers, upcycled if it has experts where
    `start` is dense. Raises RequestError naming the first setting that differs and has no such way.
    """
    if target.layers > start.layers:
        state, start = deepen(state, start, target.layers), start.model_copy(update={"layers": target.layers})
    if target.experts is not None and start.experts is None and start.hidden == target.experts.hidden:
        state, start = upcycle(state, start, target, seed=seed, noise=noise), _as_upcycled(start, target)
    left = {name: values for name, values in differences(start, target).items() if name not in FREE}
    if left:
        name, (was, wanted) = min(left.items())
        raise RequestError(
            f"a model whose {name} is {_said(was)} cannot give its weights to one whose {name} is {_said(wanted)}: use "
            "the same network, one with more layers, or one with experts as wide as its dense feed-forward"
        )
    return dict(state)


def _said(value: Any) -> str:
    return "absent" if value is None else "given" if isinstance(value, dict) else str(value)


def _as_upcycled(start: Network, target: Network) -> Network:
    """What `start` has become: the experts are new, and a dense width is left only for the first layers."""
    assert target.experts is not None
    if target.experts.shared:
        raise RequestError("a dense feed-forward becomes routed experts alone: set experts.shared to 0")
    return start.model_copy(update={"experts": target.experts, "hidden": start.hidden if target.hidden else None})


def deepen(state: State, network: Network, layers: int) -> dict[str, Tensor]:
    """More blocks: after every n-th block a copy of it whose outputs are zero, so that the function stays the same
    (depth expansion; Moxin, arXiv:2412.06845, took 32 to 36 layers; LLaMA Pro, arXiv:2401.02415).

    Raises RequestError unless the new blocks divide the old ones evenly.
    """
    added = layers - network.layers
    if added <= 0 or network.layers % added:
        raise RequestError(
            f"{network.layers} layers cannot grow to {layers}: the number of new ones, {added}, must divide the old"
        )
    every = network.layers // added
    if network.experts is not None and network.dense_layers >= every:
        raise RequestError(
            f"{network.layers} layers cannot grow to {layers}: a copy would fall among the {network.dense_layers} "
            "dense layers at the bottom"
        )
    deeper: dict[str, Tensor] = {}
    for name, weight in state.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None:
            deeper[name] = weight
            continue
        block, rest = int(match[1]), match[2]
        place = block + block // every
        deeper[f"blocks.{place}.{rest}"] = weight
        if block % every == every - 1:
            silent = rest == "attention.out.weight" or (rest.startswith("feed_forward.") and "down" in rest)
            deeper[f"blocks.{place + 1}.{rest}"] = torch.zeros_like(weight) if silent else weight.clone()
    return deeper


def upcycle(state: State, network: Network, target: Network, *, seed: int, noise: float = 0.0) -> dict[str, Tensor]:
    """Experts from a dense network: every expert of a layer a copy of its feed-forward, every router new (sparse
    upcycling, arXiv:2212.05055; OLMoE, arXiv:2409.02060, section 4.1.5).

    With weights that sum to 1 (`normalise`) the function stays the same. `noise` is the share of each expert's weights
    that are drawn anew from N(0, 0.02^2), so that experts can become different.
    """
    experts = target.experts
    assert experts is not None
    sparse: dict[str, Tensor] = {}
    for name, weight in state.items():
        match = re.fullmatch(r"((?:blocks|multi_token)\.(\d+)\..*feed_forward)\.(gate_up|down)\.weight", name)
        if match is None or (name.startswith("blocks.") and int(match[2]) < experts.first_dense):
            sparse[name] = weight
            continue
        layer, part = match[1], match[3]
        stacked_name = f"{layer}.{'gate_up_EDH' if part == 'gate_up' else 'down_EHD'}"
        stacked = _stacked(weight, experts.count)
        if noise:
            generator = named_generator(seed, stacked_name)
            drawn = torch.rand(stacked.shape, generator=generator) < noise
            fresh = torch.randn(stacked.shape, generator=generator) * NEW_STD
            stacked = torch.where(drawn, fresh.to(stacked), stacked)
        sparse[stacked_name] = stacked
        if part == "down":
            router = (
                torch.randn(experts.count, network.dim, generator=named_generator(seed, f"{layer}.router")) * NEW_STD
            )
            sparse[f"{layer}.router.weight"] = router.to(weight)
            if experts.score_bias:
                sparse[f"{layer}.router.bias_E"] = torch.zeros(experts.count)
    return sparse


def _stacked(weight: Tensor, count: int) -> Tensor:
    """A dense matrix (out, in), gate rows before up rows, as those of `count` equal experts: (E, in, out)."""
    return weight.T.expand(count, -1, -1).clone(memory_format=torch.contiguous_format)
