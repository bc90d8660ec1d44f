"""Which process writes which values, and how they come back under another plan.

The planning is PyTorch distributed checkpoint's (`torch.distributed.checkpoint`): of values that several processes hold
one writes them, and the pieces must cover each tensor once. The storage is not: DCP keeps pickles, this safetensors
files and a JSON index (`model/pieces.py`), which no reader has to trust.
"""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner, SavePlan
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from glassbox.errors import GlassboxError, RequestError
from glassbox.model.pieces import Pieces, key
from glassbox.model.tensors import NAMES, InMemory, write_file
from glassbox.train.parallel.layout import Block, Extent, whole
from glassbox.train.parallel.place import Placed

MODEL, OPTIMIZER = "model.", "optimizer."
"""What the names of weights and of moments begin with: `model.<name>`, `optimizer.<moment>.<name>`."""

Anything = TypeVar("Anything")


class Part(NamedTuple):
    """What a process holds of a tensor."""

    name: str
    tensor: Tensor
    extent: Extent


@dataclass(frozen=True)
class Plan:
    """Who writes what."""

    mine: frozenset[str]
    """Keys of the pieces that this process writes."""
    index: dict[str, Any]
    """The content of `tensors.json`."""

    @property
    def bytes(self) -> int:
        """Size of all tensors together."""
        dtypes = {name: dtype.itemsize for dtype, name in NAMES.items()}
        return sum(math.prod(tensor["shape"]) * dtypes[tensor["dtype"]] for tensor in self.index.values())


def parts_of(placed: Placed, optimizer: torch.optim.Optimizer) -> list[Part]:
    """All that this process holds of weights, score biases and moments."""
    found = [Part(MODEL + name, *placed.held(name, tensor.detach())) for name, tensor in placed.tensors()]
    for name, parameter in placed.parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            held = placed.held(name, value) if value.dim() else (value, whole(()))  # a step's count is not divided
            found.append(Part(f"{OPTIMIZER}{moment}.{name}", *held))
    return found


def pieces_of(parts: list[Part]) -> dict[str, Tensor]:
    """The blocks of a process's parts by key, as views."""
    return {key(part.name, block.whole): block.of(part.tensor) for part in parts for block in part.extent.blocks()}


def plan(parts: list[Part], group: Any) -> Plan:
    """Share out the writing among the processes of a group (None: there is one), who all call this.

    Raises ValueError if the parts of all processes do not make up each tensor.
    """
    items = {
        key(part.name, block.whole): _item(part.name, block, part.tensor.dtype, part.extent.shape)
        for part in parts
        for block in part.extent.blocks()
    }
    plans = together(lambda: SavePlan(list(items.values())), group)
    shared_out, _ = DefaultSavePlanner(flatten_state_dict=False).create_global_plan(plans)
    index: dict[str, Any] = {}
    for rank, one in enumerate(shared_out):
        for item in one.items:
            data = item.tensor_data
            assert data is not None
            about = {"dtype": NAMES[data.properties.dtype], "shape": list(data.size), "pieces": []}
            piece = {"file": file_of(rank), "offset": list(data.chunk.offsets), "shape": list(data.chunk.sizes)}
            index.setdefault(item.index.fqn, about)["pieces"].append(piece)
    mine = shared_out[0 if group is None else dist.get_rank(group)].items
    keys = frozenset(key(item.index.fqn, item.index.offset or ()) for item in mine)
    return Plan(keys, dict(sorted(index.items())))


def _item(name: str, block: Block, dtype: torch.dtype, shape: tuple[int, ...]) -> WriteItem:
    offset, size = torch.Size(block.whole), torch.Size(block.size)
    data = TensorWriteData(ChunkStorageMetadata(offset, size), TensorProperties(dtype), torch.Size(shape))
    return WriteItem(MetadataIndex(name, offset), WriteItemType.SHARD, tensor_data=data)


def file_of(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def write_pieces(folder: Path, rank: int, pieces: dict[str, Tensor]) -> dict[str, str]:
    """Write a process's pieces to disk; the file's SHA-256 by its name, nothing if there are none."""
    if not pieces:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_of(rank)
    with path.open("wb") as file:
        write_file(file, list(pieces), InMemory(pieces))
        file.flush()
        os.fsync(file.fileno())
    return {path.name: sha256(path)}


@torch.no_grad()
def read_parts(folder: Path, placed: Placed, optimizer: torch.optim.Optimizer) -> None:
    """Set a process's weights and moments, in place, from what processes of any plan wrote.

    Raises RequestError if the folder holds another network.
    """
    stored = Pieces(folder)
    optimizer.state.clear()
    moments = {name.removeprefix(OPTIMIZER).split(".")[0] for name in stored.entries if name.startswith(OPTIMIZER)}
    for name, parameter in placed.parameters():
        for moment in sorted(moments):
            if entry := stored.entries.get(f"{OPTIMIZER}{moment}.{name}"):
                like = parameter if entry.shape else torch.empty((), device=parameter.device)  # a count is not divided
                optimizer.state[parameter][moment] = torch.zeros_like(like, dtype=entry.dtype)
    for part in parts_of(placed, optimizer):
        if part.name not in stored.entries or stored.entries[part.name].shape != part.extent.shape:
            raise RequestError(f"{folder} holds another network: '{part.name}' is missing or of another shape")
        for block in part.extent.blocks():
            block.of(part.tensor).copy_(stored.box(part.name, block.whole, block.size))


def together(work: Callable[[], Anything], group: Any) -> list[Anything]:
    """Do a piece of work on every process of a group (None: there is one), who all call this; what came out on each.

    Where it fails on one, every process raises its error.
    """
    outcome: Anything | GlassboxError | OSError
    try:
        outcome = work()
    except (GlassboxError, OSError) as error:
        outcome = error
    outcomes: list[Any] = [outcome]
    if group is not None:
        outcomes = [None] * dist.get_world_size(group)
        dist.all_gather_object(outcomes, outcome, group)
    for one in outcomes:
        if isinstance(one, Exception):
            raise one
    return outcomes


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
