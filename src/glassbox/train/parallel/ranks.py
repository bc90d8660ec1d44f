"""The processes of a run: how many there are, where this one stands among them, and sums over all of them.

Dimensions of the mesh, outermost first; a process's neighbours in the last ones should be its nearest:

    pipeline   stretches of layers
    replicate  copies of the model, other rows
    fold       shares of the weights, other rows; what `shard` has besides `expert`
    context    shares of the weights, other columns of the same rows
    expert     shares of the weights, other rows; experts are divided among these
    tensor     heads and feed-forward width divided, other columns of the same rows
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from glassbox.recipe.loop import Parallel, sizes_for
from glassbox.tokens.order import Share

DIMENSIONS = ("pipeline", "replicate", "fold", "context", "expert", "tensor")
TIMEOUT = timedelta(hours=2)
"""How long a collective waits for a process that does not come; the watchdog is quicker."""


@dataclass(frozen=True)
class Ranks:
    """A process's place in a plan; `Ranks()` is a process on its own."""

    plan: Parallel = field(default_factory=Parallel)
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 1))
    mesh: DeviceMesh | None = None
    device: str = "cpu"
    aside: Any = None
    """A group of all processes on the CPU, for what happens beside the training: checkpoints."""

    @property
    def world(self) -> int:
        return 1 if self.mesh is None else dist.get_world_size()

    @property
    def rank(self) -> int:
        return 0 if self.mesh is None else dist.get_rank()

    def index(self, dimension: str) -> int:
        """This process's coordinate."""
        return 0 if self.mesh is None else self.mesh.get_local_rank(dimension)

    def group(self, dimension: str) -> Any:
        """The process group of those that differ from this one in a dimension alone."""
        assert self.mesh is not None
        return self.mesh.get_group(dimension)

    @property
    def share(self) -> Share:
        """The rows of a step that this process reads."""
        index = 0
        for dimension in ("replicate", "fold", "expert"):
            index = index * self.sizes[dimension] + self.index(dimension)
        return Share(index, self.sizes["replicate"] * self.sizes["fold"] * self.sizes["expert"])

    @property
    def columns(self) -> Share:
        """The columns of its rows that this process works on."""
        index = self.index("context") * self.sizes["tensor"] + self.index("tensor")
        return Share(index, self.sizes["context"] * self.sizes["tensor"])

    @property
    def first_of_row(self) -> bool:
        """Whether this process speaks for those that read the same rows."""
        return self.index("pipeline") == 0 and self.columns.index == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, the same on each."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, values: Sequence[float]) -> list[float]:
        """Maxima over all processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over all processes, in place."""
        if self.mesh is not None:
            dist.all_reduce(tensor)
        return tensor

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.mesh is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()


ALONE = Ranks()


def world() -> int:
    """Processes that were started together (torchrun's WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> int:
    """Processes of the group that does this stage."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(values: list[Any]) -> list[Any]:
    """The values of all processes, those of the first one first; the same list on each."""
    if processes() == 1:
        return values
    every: list[list[Any]] = [[] for _ in range(processes())]
    dist.all_gather_object(every, values)
    return [value for one in every for value in one]


def join(plan: Parallel, device: str = "cpu") -> Ranks:
    """Take a place among the processes of the run. Raises RequestError if the plan does not fit their number."""
    sizes = sizes_for(plan, dist.get_world_size() if dist.is_initialized() else world())
    count = 1
    for size in sizes.values():
        count *= size
    if count == 1:
        return Ranks(plan, sizes, None, device)
    if not dist.is_initialized():
        open_group(device)
    mesh = init_device_mesh("cpu" if device == "cpu" else "cuda", tuple(sizes.values()), mesh_dim_names=DIMENSIONS)
    return Ranks(plan, sizes, mesh, device, dist.new_group(backend="gloo", timeout=TIMEOUT))


def open_group(device: str, **where: Any) -> None:
    """Make the group of all processes, who meet in torchrun's environment or `where`: `store`, `rank`, `world_size`."""
    if device != "cpu":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device != "cpu" else "gloo", timeout=TIMEOUT, **where)
