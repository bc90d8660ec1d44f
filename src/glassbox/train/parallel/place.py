"""From a plan to calls: a model's part for this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from glassbox.model.transformer import Output, Transformer
from glassbox.train.parallel.layout import Extent, held, whole
from glassbox.train.parallel.ranks import ALONE, Ranks
from glassbox.train.rows import Rows, forward


@dataclass
class Placed:
    """A network as one process of a run holds it."""

    parts: list[Transformer]
    """This process's stretches of layers, each a network that lacks the rest; the whole network without a pipeline."""
    ranks: Ranks = ALONE
    extents: dict[str, Extent] = field(default_factory=dict)
    """Of each tensor that is divided before FSDP divides it further; the others are whole."""

    @property
    def model(self) -> Transformer:
        """The first part: without a pipeline, the network."""
        return self.parts[0]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that are saved, by the names that the whole network has for them; each once."""
        for part in self.parts:
            yield from part.named_parameters()
            yield from ((name, buffer) for name, buffer in part.named_buffers() if buffer is not None)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for part in self.parts:
            yield from part.named_parameters()

    def held(self, name: str, tensor: Tensor) -> tuple[Tensor, Extent]:
        """The values of the named tensor, of its gradient or of a moment of it that this process holds, and where they
        lie in the whole tensor."""
        return held(tensor, self.extents.get(name, whole(tuple(tensor.shape))))

    def output(self, micro: Rows, drafts: bool = False) -> Output:
        """Run the network on a micro-batch."""
        return forward(self.model, micro, drafts)


@torch.no_grad()
def fill(placed: Placed, values: Callable[[str], Tensor]) -> None:
    """Set every tensor from the whole tensors that `values` gives by name, one in memory at a time."""
    for name, tensor in placed.tensors():
        part, extent = placed.held(name, tensor)
        given = values(name)
        for block in extent.blocks():
            block.of(part).copy_(block.of_whole(given))
