"""Where the values that a process holds of a tensor lie in the whole tensor.

A plan cuts tensors along any dimension, and what a process holds of one need not lie together in it: of the fused
matrix of queries, keys and values it holds some rows of each. So a process's part is described by ranges along each
dimension, in the order in which it holds them; a checkpoint writes and reads blocks of the whole tensor, whatever the
plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Ranges = tuple[tuple[int, int], ...]
"""Neighbouring stretches [start, stop) of the whole tensor along one dimension, in the order they are held."""


@dataclass(frozen=True)
class Extent:
    """A process's part of a tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    ranges: tuple[Ranges, ...]
    """For each dimension."""

    @property
    def local(self) -> tuple[int, ...]:
        """Shape of the part."""
        return tuple(sum(stop - start for start, stop in ranges) for ranges in self.ranges)

    def cut(self, dimension: int, start: int, stop: int) -> "Extent":
        """The part of the part that lies in [start, stop) of its own coordinates along a dimension."""
        found, place = [], 0
        for low, high in self.ranges[dimension]:
            first, last = max(start - place, 0), min(stop - place, high - low)
            if first < last:
                found.append((low + first, low + last))
            place += high - low
        return self._with(dimension, tuple(found))

    def pick(self, dimension: int, ranges: Ranges) -> "Extent":
        """Those rows (columns) of a whole dimension."""
        return self._with(dimension, ranges)

    def blocks(self) -> Iterator["Block"]:
        """Its blocks that lie together in the whole tensor; none if the part is empty."""
        held = []
        for ranges in self.ranges:
            place, along = 0, []
            for start, stop in ranges:
                along.append((start, place, stop - start))
                place += stop - start
            held.append(along)
        for one in product(*held):
            yield Block(tuple(a for a, _, _ in one), tuple(b for _, b, _ in one), tuple(c for _, _, c in one))

    def _with(self, dimension: int, ranges: Ranges) -> "Extent":
        return Extent(self.shape, (*self.ranges[:dimension], ranges, *self.ranges[dimension + 1 :]))


@dataclass(frozen=True)
class Block:
    """A box of values that lie together in the whole tensor and in a process's part of it."""

    whole: tuple[int, ...]
    """Where it starts in the whole tensor."""
    held: tuple[int, ...]
    """Where it starts in the process's part."""
    size: tuple[int, ...]

    def of(self, held: Tensor) -> Tensor:
        """The block in the process's part, a view."""
        return held[tuple(slice(a, a + n) for a, n in zip(self.held, self.size, strict=True))]

    def of_whole(self, whole: Tensor) -> Tensor:
        """The block in the whole tensor, a view."""
        return whole[tuple(slice(a, a + n) for a, n in zip(self.whole, self.size, strict=True))]


def whole(shape: tuple[int, ...]) -> Extent:
    """All of a tensor."""
    return Extent(tuple(shape), tuple(((0, length),) for length in shape))


def held(tensor: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
    """The values that this process holds of a parameter (or of its gradient, or of a moment), and where they lie.

    `extent` says so of the parameter before FSDP cut it along its first dimension.
    """
    if not isinstance(tensor, DTensor):
        return tensor, extent
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local(), extent.cut(0, offset[0], offset[0] + shape[0]) if tensor.dim() else extent
