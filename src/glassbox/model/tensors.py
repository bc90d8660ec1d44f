"""Tensors on disk: safetensors files, one or many, read by rows and written piece by piece.

Nothing is memory-mapped, so what was read does not stay in memory: a checkpoint of any size needs the room of the
piece in hand. Other formats, above all pickles (which can run code), are not read.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_open, write_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
"""Size of a file at which the next one is begun, in bytes: what the Hugging Face hub uses."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

PIECE_BYTES = 1 << 25
"""What is held of a tensor on its way, in bytes (or one row; one expert)."""

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor's type and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


class Tensors(Protocol):
    """Named tensors that can be read by rows, wherever they are."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Type and shape of every tensor, by name."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (None: the last) of a tensor, as stored."""


@dataclass(frozen=True)
class _Place:
    file: Path
    offset: int


class Checkpoint:
    """The safetensors files of a folder as `Tensors`. Their headers are read and held against the files' sizes here.

    Raises `RequestError` naming the file that is missing, damaged, or of another format.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._places: dict[str, _Place] = {}
        for file in _files(folder):
            for name, entry, offset in _header(file):
                if name in self.entries:
                    raise RequestError(f"{file}: '{name}' stands in {self._places[name].file.name} too")
                self.entries[name], self._places[name] = entry, _Place(file, offset)
        if not (folder / WEIGHTS).exists():
            for name, shard in _weight_map(folder / INDEX).items():
                if name not in self._places or self._places[name].file.name != shard:
                    raise RequestError(f"{folder / INDEX} looks for '{name}' in {shard}, which does not hold it")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (None: the last) of a tensor, as stored."""
        entry, place = self.entries[name], self._places[name]
        return read_rows(place.file, place.offset, entry, start, stop)


class InMemory:
    """Tensors at hand as `Tensors`."""

    def __init__(self, state: Mapping[str, Tensor]):
        self._state = state
        self.entries = {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` (None: the last) of a tensor, on the CPU."""
        tensor = self._state[name].detach()
        return (tensor[start:stop] if tensor.dim() else tensor).cpu()


class Typed:
    """Tensors in the types they shall have."""

    def __init__(self, tensors: Tensors, dtype_of: Callable[[str, Entry], torch.dtype]):
        self._tensors = tensors
        self.entries = {name: replace(entry, dtype=dtype_of(name, entry)) for name, entry in tensors.entries.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor in its new type. Raises `RequestError` for a number that is not finite (in that type)."""
        dtype = self.entries[name].dtype
        tensor = self._tensors.read(name, start, stop)
        turned = tensor.to(dtype)
        if not _finite(turned):
            if _finite(tensor):
                raise RequestError(f"'{name}' holds numbers too large for {NAMES[dtype]}: choose another --dtype")
            raise RequestError(f"'{name}' holds numbers that are not finite: the weights are damaged")
        return turned


def _finite(tensor: Tensor) -> bool:
    """Whether every number is finite, found without a copy."""
    return tensor.numel() == 0 or all(math.isfinite(value) for value in torch.stack(torch.aminmax(tensor)).tolist())


def read_rows(file: Path, offset: int, entry: Entry, start: int = 0, stop: int | None = None) -> Tensor:
    """Rows `start` to `stop` (None: the last) of the tensor whose bytes begin at `offset` of the file."""
    rows = len(range(*slice(start, stop).indices(entry.shape[0]))) if entry.shape else 1
    tensor = torch.empty((rows, *entry.shape[1:]) if entry.shape else (), dtype=entry.dtype)
    row_bytes = entry.bytes // max(1, entry.shape[0]) if entry.shape else entry.bytes
    with file.open("rb", buffering=0) as opened:
        opened.seek(offset + start * row_bytes)
        left = _bytes(tensor)
        while left:
            count = opened.readinto(left)
            if not count:
                raise RequestError(f"{file} is damaged: it ends early")
            left = left[count:]
    return tensor


def write_tensors(folder: Path, tensors: Tensors, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as `model.safetensors`, or as shards of at most `shard_bytes` (or one tensor) and their index.

    `PIECE_BYTES` are held at a time. Each file appears whole or not at all, the index last; files of an earlier
    writing that are not among these are deleted.
    """
    shards = _shards(tensors.entries, shard_bytes)
    names = [WEIGHTS]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        with atomic_open(folder / name, "wb") as file:
            write_file(file, shard, tensors)
    for old in folder.glob("model*.safetensors*"):
        if old.name not in names:
            old.unlink()
    if len(shards) > 1:
        size = sum(entry.bytes for entry in tensors.entries.values())
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def write_bytes(file: IO[bytes], tensors: Tensors, name: str) -> None:
    """Write a tensor's bytes, row after row, a piece at a time."""
    entry = tensors.entries[name]
    rows = entry.shape[0] if entry.shape else 1
    step = max(1, PIECE_BYTES * rows // max(1, entry.bytes))
    written = 0
    for start in range(0, rows, step):
        piece = tensors.read(name, start, min(start + step, rows))
        assert piece.dtype == entry.dtype, f"{name} comes in another type than announced"
        written += file.write(_bytes(piece.contiguous()))
    assert written == entry.bytes, f"{name} comes in another size than announced"


def write_file(file: IO[bytes], names: list[str], tensors: Tensors) -> None:
    """Write one safetensors file: the header's length, the header, the tensors' bytes one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    # the widest type first keeps every tensor aligned to its own width
    order = sorted(names, key=lambda name: -tensors.entries[name].dtype.itemsize)
    offset = 0
    for name in order:
        entry = tensors.entries[name]
        span = [offset, offset := offset + entry.bytes]
        header[name] = {"dtype": NAMES[entry.dtype], "shape": entry.shape, "data_offsets": span}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        write_bytes(file, tensors, name)


def _shards(entries: Mapping[str, Entry], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, entry in entries.items():
        if shards[-1] and entry.bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= entry.bytes
    return shards


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def _files(folder: Path) -> list[Path]:
    """The folder's safetensors files, those of its index if it has no single one."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        files = [folder / name for name in sorted(set(_weight_map(folder / INDEX).values()))]
        for file in files:
            if not file.is_file():
                raise RequestError(f"{file} is missing: {INDEX} names it")
        return files
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES) if folder.is_dir() else []
    if pickles:
        raise RequestError(
            f"{folder} has its weights only as pickles ({pickles[0]}), which can run code when they are read; "
            "glassbox reads safetensors: convert them where you trust them"
        )
    raise RequestError(f"{folder / WEIGHTS} is missing: not a complete model folder")


def _weight_map(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        sound = all(Path(shard).name == shard for shard in places.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound or not places:
        raise RequestError(f"{path} is damaged: it has no weight_map from tensors to files beside it")
    return places


def _header(file: Path) -> Iterator[tuple[str, Entry, int]]:
    """(name, entry, offset in the file) of each tensor of a safetensors file, held against the file's size."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise RequestError(f"{file} is damaged: it ends within its header")
        try:
            header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            tensors = [(name, str(t["dtype"]), tuple(t["shape"]), *t["data_offsets"]) for name, t in header.items()]
            tensors.sort(key=lambda tensor: tensor[3:])
            if not all(isinstance(n, int) and n >= 0 for _, _, shape, *span in tensors for n in (*shape, *span)):
                raise ValueError("sizes and places are numbers")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RequestError(f"{file} is damaged: its header is not that of a safetensors file") from error
    offset = 0
    for name, dtype, shape, first, last in tensors:
        if dtype not in DTYPES:
            raise RequestError(f"{file}: '{name}' is of type {dtype}; glassbox reads F32, BF16 and F16")
        entry = Entry(DTYPES[dtype], shape)
        if first != offset or last - first != entry.bytes:
            raise RequestError(f"{file} is damaged: '{name}' does not lie where its header says")
        yield name, entry, 8 + length + first
        offset = last
    if 8 + length + offset != size:
        raise RequestError(f"{file} is damaged: it should have {8 + length + offset:,} bytes and has {size:,}")
