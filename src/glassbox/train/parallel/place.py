"""From a plan to calls: a plain model becomes this process's part of it.

    pipeline   `pipeline.py`   stretches of layers, each a network without the rest
    tensor     `sequence.py`   heads and feed-forward width cut, columns gathered and scattered around them
    context    `sequence.py`   columns exchanged for heads inside attention
    expert     `experts.py`    some experts of each layer, tokens travel
    the rest   FSDP2           what is left of each tensor shared out over replicate x (fold, context, expert)

Losses are sums over what the whole step counts, so gradients are sums over processes everywhere: FSDP adds and never
averages; an expert's gradient has come together from all tokens that were sent to it; of tensors that a `tensor` group
holds whole each process has the gradient of its own columns, which `sum_over_columns` adds up.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from glassbox.errors import RequestError
from glassbox.model.experts import MixtureOfExperts
from glassbox.model.transformer import Output, Transformer
from glassbox.recipe.loop import Parallel
from glassbox.recipe.stretches import embedded_twice
from glassbox.train.parallel.experts import EXPERT_MATRICES, divide_experts
from glassbox.train.parallel.layout import Extent, held, whole
from glassbox.train.parallel.pipeline import Pipeline
from glassbox.train.parallel.ranks import ALONE, DIMENSIONS, Ranks, join
from glassbox.train.parallel.sequence import columns_of, divide_context, divide_heads
from glassbox.train.parallel.stages import stretches
from glassbox.train.recompute import all_blocks
from glassbox.train.rows import Rows, columns_output, empty_row, micro_batches, rounds

DATA = ("fold", "context", "expert")
"""Dimensions of the mesh over which a tensor is shared out; experts over all but `expert`."""


@dataclass
class Placed:
    """A network as one process of a run holds it."""

    parts: list[Transformer]
    """This process's stretches of layers, each a network that lacks the rest; the whole network without a pipeline."""
    ranks: Ranks = ALONE
    extents: dict[str, Extent] = field(default_factory=dict)
    """Of each tensor that is divided before FSDP divides it further; the others are whole."""
    pipeline: Pipeline | None = None
    """What runs the stretches, where there is more than one in the run."""

    @property
    def model(self) -> Transformer:
        """The first part: without a pipeline, the network."""
        return self.parts[0]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that are saved, by the names that the whole network has for them; each once."""
        for part in self.parts:
            yield from part.named_parameters()
            yield from part.named_buffers()

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for part in self.parts:
            yield from part.named_parameters()

    def held(self, name: str, tensor: Tensor) -> tuple[Tensor, Extent]:
        """The values of the named tensor, of its gradient or of a moment of it that this process holds, and where they
        lie in the whole tensor."""
        return held(tensor, self.extents.get(name, whole(tuple(tensor.shape))))

    def micro_batches(self, rows: Rows, sequences: int) -> Iterator[tuple[Rows, bool]]:
        """Micro-batches of this process's rows, as many on every process, and whether each is the last.

        Where rows do not divide evenly, those of some processes are followed by padding. Raises RequestError for rows
        that cannot be padded: a row that is not packed counts whatever its labels are.
        """
        cut, count = self.ranks.columns.count == 1, rounds(rows, sequences)
        most, unpacked, least = self.ranks.most([count, float("documents" not in rows), -count])
        if unpacked and most != -least:
            raise RequestError(
                f"the rows of a step do not divide evenly among {self.ranks.share.count} processes: change `rows`"
            )
        for number, micro in enumerate(micro_batches(rows, sequences, self.device, cut), 1):
            yield micro, number == most
        for number in range(count + 1, int(most) + 1):
            yield {name: value.to(self.device) for name, value in empty_row(rows).items()}, number == most

    def output(self, micro: Rows, drafts: bool = False) -> tuple[Output, Rows]:
        """Run the network on a micro-batch of whole rows; the output for this process's columns, and their targets."""
        return columns_output(self.model, micro, drafts)

    def outputs(self, rows: Rows, sequences: int, drafts: bool = False) -> Iterator[tuple[Output, Rows]]:
        """Run the network without a backward pass on micro-batches of this process's rows, and give `output` of each in
        turn; in a pipeline only where the network ends, and all its processes have to go through them."""
        micros = (micro for micro, _ in self.micro_batches(rows, sequences))
        if self.pipeline is not None:
            yield from self.pipeline.outputs(list(micros), drafts)
        else:
            yield from (self.output(micro, drafts) for micro in micros)

    def copies(self, name: str) -> int:
        """How many times the same values of a tensor are held; a process can hold them twice (`pipeline.py`)."""
        sizes = self.ranks.sizes
        twice = name == "embedding.weight" and embedded_twice(self.model.network, self.ranks.plan.stages)
        return sizes["replicate"] * (1 if self.cut_by_tensor(name) else sizes["tensor"]) * (2 if twice else 1)

    def cut_by_tensor(self, name: str) -> bool:
        """Whether the processes of a `tensor` group hold different values of a tensor."""
        return name in self.extents and not name.endswith(EXPERT_MATRICES)

    def settle(self) -> None:
        """Give back weights that were gathered for a forward pass without a backward pass: what is held is then each
        process's share again."""
        for part in self.parts:
            for module in part.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()


def place(model: Transformer, plan: Parallel, device: str) -> Placed:
    """Cut a whole model, real or on the meta device, down to this process's part of it, on its device and in place.

    Raises RequestError if the plan does not fit the processes that are running.
    """
    ranks = join(plan, device)
    if ranks.mesh is None:
        return Placed([model if _is_meta(model) else model.to(device)], ranks)
    parts = stretches(model, plan, ranks.index("pipeline")) if plan.pipeline > 1 else [model]
    extents: dict[str, Extent] = {}
    for part in parts:
        part.columns = columns_of(ranks)
        if ranks.sizes["tensor"] > 1:
            extents |= divide_heads(part, ranks)
        if ranks.sizes["context"] > 1:
            divide_context(part, ranks)
        if ranks.sizes["expert"] > 1:
            extents |= divide_experts(part, ranks)
        if not _is_meta(part):
            part.to(device)
        _share_out(part, ranks)
    return Placed(parts, ranks, extents, Pipeline(parts, ranks) if plan.pipeline > 1 else None)


def _is_meta(model: nn.Module) -> bool:
    return next(model.parameters()).is_meta


def _share_out(model: Transformer, ranks: Ranks) -> None:
    """FSDP2 over each block and the rest."""
    if ranks.sizes["replicate"] * ranks.sizes["fold"] * ranks.sizes["context"] * ranks.sizes["expert"] == 1:
        return
    alone = ranks.sizes["replicate"] * ranks.sizes["fold"] * ranks.sizes["context"] == 1
    ignored: set[nn.Parameter] = set()
    share_out = partial(fully_shard, mesh=_mesh(ranks, DATA), reshard_after_forward=ranks.plan.zero == 3)
    among_experts = None if alone or ranks.sizes["expert"] == 1 else _mesh(ranks, DATA[:2])
    for module in model.modules():
        if isinstance(module, MixtureOfExperts) and ranks.sizes["expert"] > 1:
            share_out(module.router)
            if module.shared is not None:
                share_out(module.shared)
            if among_experts is None:
                ignored |= {module.gate_up_EDH, module.down_EHD}
            else:
                share_out(module, mesh=among_experts)
    for block in all_blocks(model):
        share_out(block, ignored_params=ignored)
    # the head is used after the forward pass of the network, so the rest stays gathered until the backward pass
    share_out(model, ignored_params=ignored, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _mesh(ranks: Ranks, shared: tuple[str, ...]) -> dist.DeviceMesh:
    """The mesh over which tensors are shared out: (replicate, the dimensions `shared` as one), or the latter alone."""
    sizes = dict(ranks.sizes)
    sizes[shared[0]] = math.prod(sizes.pop(dimension) for dimension in shared)
    order = [dimension for dimension in DIMENSIONS if dimension in sizes]
    kind = "cpu" if ranks.device == "cpu" else "cuda"
    mesh = init_device_mesh(kind, tuple(sizes[one] for one in order), mesh_dim_names=tuple(order))
    return mesh["replicate", shared[0]] if sizes["replicate"] > 1 else mesh[shared[0]]


def hold_back(placed: Placed, last: bool) -> None:
    """With zero 1, gradients travel after a step's last micro-batch only."""
    for part in placed.parts:
        if isinstance(part, FSDPModule) and placed.ranks.plan.zero == 1:
            part.set_requires_gradient_sync(last)


def sum_over_columns(placed: Placed) -> None:
    """Add up, over each `tensor` group, the gradients of the tensors that all its processes hold."""
    if placed.ranks.sizes["tensor"] == 1:
        return
    group = placed.ranks.group("tensor")
    works = []
    for name, parameter in placed.parameters():
        if parameter.grad is not None and not placed.cut_by_tensor(name):
            works.append(dist.all_reduce(local(parameter.grad), group=group, async_op=True))
    for work in works:
        work.wait()


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, to be changed in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def clip_gradients(placed: Placed, most: float) -> float:
    """The norm of the whole gradient over all processes; scales it down to `most` where it is larger.

    Each process adds the squares of the values it holds, over the number of processes that hold them too.
    """
    grads = [(name, local(p.grad)) for name, p in placed.parameters() if p.grad is not None]
    if placed.ranks.mesh is None:
        norm = torch.nn.utils.get_total_norm([grad for _, grad in grads])
    else:
        square = torch.zeros((), dtype=torch.float64, device=placed.ranks.device)
        for name, grad in grads:
            square += torch.linalg.vector_norm(grad, dtype=torch.float32).double().square() / placed.copies(name)
        norm = placed.ranks.sum_(square).sqrt().float()
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([grad for _, grad in grads], factor)
    return float(norm)


@torch.no_grad()
def fill(placed: Placed, values: Callable[[str], Tensor]) -> None:
    """Make room for every tensor of a model on the meta device, and set it from the whole tensors that `values` gives
    by name, one in memory at a time."""
    for part in placed.parts:
        part.to_empty(device=placed.ranks.device)
    for name, tensor in placed.tensors():
        part_held, extent = placed.held(name, tensor)
        given = values(name)
        if tuple(given.shape) != extent.shape:
            raise RequestError(f"{name} has the shape {tuple(given.shape)}, not {extent.shape}")
        for block in extent.blocks():
            block.of(part_held).copy_(block.of_whole(given))
