"""Tensors that several processes wrote, each its pieces of them, as a training checkpoint keeps them.

    rank-00000.safetensors   the pieces that a process wrote, each under `key(tensor, offset)`
    tensors.json             {tensor: {"dtype", "shape", "pieces": [{"file", "offset", "shape"}]}}

Any box of a tensor can be read, however it was cut: only the slices that are asked for leave the disk.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.model.tensors import DTYPES, Entry

PIECES = "tensors.json"


@dataclass(frozen=True)
class Piece:
    """A box of a tensor in a file."""

    file: str
    offset: tuple[int, ...]
    """Where it starts in the tensor."""
    shape: tuple[int, ...]


class Pieces:
    """The tensors of a folder whose names begin with `prefix`, by the rest of their names, as `Tensors`.

    Raises `RequestError` if the index is missing or damaged.
    """

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self._prefix = folder, prefix
        self._files: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        self._pieces: dict[str, list[Piece]] = {}
        for name, (entry, pieces) in _index(folder / PIECES).items():
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                self.entries[name], self._pieces[name] = entry, pieces

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (None: the last) of a tensor, as stored."""
        shape = self.entries[name].shape
        if not shape:
            return self.box(name, (), ())
        rows = range(*slice(start, stop).indices(shape[0]))
        return self.box(name, (rows.start,) + (0,) * (len(shape) - 1), (len(rows), *shape[1:]))

    def box(self, name: str, offset: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The box of a tensor that starts at `offset`. Raises `RequestError` if the pieces do not make it up."""
        found, filled = torch.empty(tuple(shape), dtype=self.entries[name].dtype), 0
        for piece in self._pieces[name]:
            low = [max(pair) for pair in zip(offset, piece.offset, strict=True)]
            ends = zip(offset, shape, piece.offset, piece.shape, strict=True)
            high = [min(start + length, other + width) for start, length, other, width in ends]
            if all(first < last for first, last in zip(low, high, strict=True)):
                part = self._read(name, piece, _slices(low, high, piece.offset))
                found[_slices(low, high, offset)] = part
                filled += part.numel()
        if filled != found.numel():
            raise RequestError(f"{self.folder / PIECES} is damaged: its pieces do not make up '{name}'")
        return found

    def _read(self, name: str, piece: Piece, slices: tuple[slice, ...]) -> Tensor:
        path, stored = self.folder / piece.file, key(self._prefix + name, piece.offset)
        try:
            if piece.file not in self._files:
                self._files[piece.file] = safe_open(path, "pt")
            file = self._files[piece.file]
            return file.get_slice(stored)[slices] if slices else file.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise RequestError(f"{path} is damaged: '{stored}' cannot be read ({error})") from error


def key(name: str, offset: Sequence[int]) -> str:
    """What a piece is called in its file."""
    return f"{name}@{','.join(map(str, offset))}"


def _slices(low: Sequence[int], high: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a - zero, b - zero) for a, b, zero in zip(low, high, origin, strict=True))


def _index(path: Path) -> dict[str, tuple[Entry, list[Piece]]]:
    try:
        found = {
            name: (
                Entry(DTYPES[tensor["dtype"]], tuple(tensor["shape"])),
                [Piece(piece["file"], tuple(piece["offset"]), tuple(piece["shape"])) for piece in tensor["pieces"]],
            )
            for name, tensor in json.loads(path.read_text(encoding="utf-8")).items()
        }
        if all(Path(piece.file).name == piece.file for _, pieces in found.values() for piece in pieces):
            return found
        raise ValueError("files lie beside the index")
    except OSError as error:
        raise RequestError(f"{path} is missing: not a complete checkpoint") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path} is damaged: it is no index of tensors") from error
