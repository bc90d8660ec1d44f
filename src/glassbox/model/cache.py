"""Keys and values of the tokens already read, so that decoding computes only new ones.

Letters: B rows (slots), K key/value heads, C columns (capacity in tokens), T new tokens, d head width.
"""

from typing import Self

import torch
from torch import Tensor

from glassbox.recipe.network import Network


class Cache:
    """Storage for `slots` sequences of at most `capacity` tokens; position p of a sequence is column p of its slot.

    It keeps no lengths: whoever calls the network says at which positions the new tokens stand, and a query never sees
    a column after its own position, so stale columns need no clearing.
    """

    def __init__(
        self,
        network: Network,
        slots: int,
        capacity: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        # all heads of a token together: the tokens of a row are one stretch of memory, read faster than one per head
        shape = (slots, capacity, network.attention.kv_heads, network.head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(network.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(network.layers)]

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[1]

    def rows(self, start: int, stop: int) -> Self:
        """The slots start..stop as a cache of their own that shares this one's memory."""
        view = object.__new__(type(self))
        view.keys = [keys[start:stop] for keys in self.keys]
        view.values = [values[start:stop] for values in self.values]
        return view

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` columns of one slot to another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :length] = tensor[source, :length]

    def write(self, layer: int, k_BTKd: Tensor, v_BTKd: Tensor, positions_BT: Tensor | None) -> None:
        """Store new keys and values at their positions; None: columns 0..T-1 of every row."""
        for stored, new_BTKd in ((self.keys[layer], k_BTKd), (self.values[layer], v_BTKd)):
            if positions_BT is None:
                stored[:, : new_BTKd.shape[1]] = new_BTKd
            else:
                rows_B1 = torch.arange(stored.shape[0], device=stored.device)[:, None]
                stored[rows_B1, positions_BT] = new_BTKd
