"""Keys and values of the tokens already read, so that decoding computes only new ones.

Letters: B rows (slots), K key/value heads, C columns, T new tokens, S keys looked at, N stored tokens, d head width.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Entry:
    """Where the new tokens of one forward pass are stored and what they are read beside; the same in every layer."""

    into: tuple[Any, Any]
    """Index of the stored (row, column)s that are written."""
    of: tuple[Any, Any]
    """Index of the new (row, token)s that are written there."""
    read: int | Tensor
    """0: the new tokens alone. A number: that many columns after the writing. A tensor (B, C): the columns of the
    tokens before, in order, copied before the writing; the new tokens follow them."""
    keys_BS: Tensor | None
    """(B or 1, S): position of each key so read; negative: empty. None: the new tokens alone, at 0..T-1."""
    ordered: bool
    """Whether the keys of a row stand in the order of their positions, without gaps."""


class Cache:
    """Storage for `slots` sequences of at most `capacity` tokens; position p of a sequence is in column p mod C.

    C is the capacity, or less where attention has a window: then the columns are a ring of `window + spare`, and memory
    stays the same however long the text (Mistral 7B, arXiv:2310.06825, section 2). Keys are stored rotated, so their
    order in the ring does not matter.

    It keeps no lengths: whoever calls the network says at which positions the new tokens stand, which tells what the
    columns hold, so stale ones need no clearing and taking tokens back is writing over them. In a ring, at most `spare`
    tokens can be taken back: those before them are gone. Multi-token blocks have layers of their own after the rest.
    """

    def __init__(
        self,
        network: Network,
        slots: int,
        capacity: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        spare: int = 0,
    ):
        window, layers = network.attention.window, network.layers
        if network.multi_token is not None:
            layers += network.multi_token.depth
        self.spare: int | None = None
        """Columns beyond the window; None: not a ring, every position has its own column."""
        columns = capacity
        if window is not None and window + spare < capacity:
            columns, self.spare = window + spare, spare
        # all heads of a token together: the tokens of a row are one stretch of memory, read faster than one per head
        shape = (slots, columns, network.attention.kv_heads, network.head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]

    @property
    def columns(self) -> int:
        """Tokens of a row that are held at a time."""
        return self.keys[0].shape[1]

    def rows(self, start: int, stop: int) -> Self:
        """The slots start..stop as a cache of their own that shares this one's memory."""
        view = object.__new__(type(self))
        view.spare = self.spare
        view.keys = [keys[start:stop] for keys in self.keys]
        view.values = [values[start:stop] for values in self.values]
        return view

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another, as far as they are held (see `holds`)."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :length] = tensor[source, :length]

    def holds(self, length: int, read: int) -> bool:
        """Whether a slot into which `read` tokens went still holds what follows its first `length` tokens needs."""
        return self.spare is None or read <= self.columns or read - length <= self.spare

    def enter(self, positions_BT: Tensor | None, T: int) -> Entry:
        """Where T new tokens of each row go and what they see; None: all rows are new and start at 0.

        Positions of a row follow one another; padding after them is negative, is not stored and sees what it likes.
        Raises `ValueError` for a position beyond the capacity.
        """
        C, every = self.columns, slice(None)
        if positions_BT is None:
            if T > C and self.spare is None:
                raise ValueError(f"{T} tokens do not fit in a cache of {C}")
            kept = slice(max(0, T - C), T)
            columns = kept if T <= C else torch.arange(T - C, T, device=self.keys[0].device) % C
            return Entry((every, columns), (every, kept), 0, None, True)
        lowest, highest = (int(value) for value in positions_BT.aminmax())
        if highest >= C and self.spare is None:
            raise ValueError(f"position {highest} is beyond a cache of {C} tokens")
        device = positions_BT.device
        end_B1 = positions_BT.amax(dim=1, keepdim=True) + 1
        into: tuple[Any, Any]
        of: tuple[Any, Any]
        if T <= C and lowest >= 0:
            rows_B1 = torch.arange(len(positions_BT), device=device)[:, None]
            into, of = (rows_B1, positions_BT % C if highest >= C else positions_BT), (every, every)
        else:
            last_BT = (positions_BT >= 0) & (positions_BT >= end_B1 - C)
            rows_N, tokens_N = last_BT.nonzero(as_tuple=True)
            into, of = (rows_N, positions_BT[rows_N, tokens_N] % C), (rows_N, tokens_N)
        if highest < C:  # no row has gone round yet
            S = max(highest, 0) + 1
            return Entry(into, of, S, torch.arange(S, device=device)[None], True)
        columns_C = torch.arange(C, device=device)
        if (self.spare or 0) >= T - 1:  # what they take the place of is out of the window of even the first of them
            return Entry(into, of, C, end_B1 - 1 - (end_B1 - 1 - columns_C) % C, False)
        start_B1 = end_B1 - (positions_BT >= 0).sum(dim=1, keepdim=True)
        keys_BS = start_B1 - C + torch.arange(C + T, device=device)
        return Entry(into, of, (start_B1 + columns_C) % C, keys_BS, True)

    def extend(self, layer: int, k_BTKd: Tensor, v_BTKd: Tensor, entry: Entry) -> tuple[Tensor, Tensor]:
        """Store new keys and values; those to attend over, (B, S, K, d) each."""
        return _extend(self.keys[layer], k_BTKd, entry), _extend(self.values[layer], v_BTKd, entry)


def _extend(stored: Tensor, new: Tensor, entry: Entry) -> Tensor:
    if isinstance(entry.read, Tensor):
        rows_B1 = torch.arange(len(stored), device=stored.device)[:, None]
        new_and_older = torch.cat((stored[rows_B1, entry.read], new), dim=1)
        stored[entry.into] = new[entry.of]
        return new_and_older
    stored[entry.into] = new[entry.of]
    return stored[:, : entry.read] if entry.read else new
