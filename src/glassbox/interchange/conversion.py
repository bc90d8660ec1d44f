"""What the ways in and out have in common: types of weights, the model others can have, the new folder, the result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_folder
from glassbox.model.families import Sizes
from glassbox.model.folder import OpenModel
from glassbox.model.names import Folded, own_entries
from glassbox.model.tensors import Entry, Tensors

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Done:
    """What an import or export did."""

    family: str
    """The model_type, or llama.cpp's name of the architecture."""
    parameters: int
    read: int
    """Tensors in the source's files."""
    written: int
    """Tensors in the result's files."""
    bytes: int
    """Of the result's weights."""
    largest: float
    """The largest difference of two logits of the fixed text between what was to be written and what was."""
    share: float
    """The differences' root mean square as a share of the logits' own."""
    seconds: float
    warnings: list[str] = field(default_factory=list)


def types_of_weights(dtype: str | None) -> Callable[[str, Entry], torch.dtype]:
    """What type each tensor shall have: `dtype` if there is one, else its own; routers' biases are fp32."""
    if dtype is not None and dtype not in TYPES:
        raise RequestError(f"--dtype {dtype}: can be {', '.join(TYPES)}")

    def dtype_of(name: str, entry: Entry) -> torch.dtype:
        if name.endswith(("bias_E", "e_score_correction_bias")):
            return torch.float32
        return entry.dtype if dtype is None else TYPES[dtype]

    return dtype_of


def for_others(opened: OpenModel, without_drafts: bool) -> tuple[Tensors, Sizes]:
    """The model as other software can have it: muP folded into the last norms, multi-token blocks out if wanted."""
    network, vocab_size, context = opened.sizes
    tensors: Tensors = Folded(opened.tensors, network) if network.mup_base is not None else opened.tensors
    changes: dict[str, Any] = {"mup_base": None} | ({"multi_token": None} if without_drafts else {})
    network = network.model_copy(update=changes)
    return _Chosen(tensors, list(own_entries(network, vocab_size))), Sizes(network, vocab_size, context)


class _Chosen:
    """Some of the tensors."""

    def __init__(self, tensors: Tensors, names: list[str]):
        self.entries: dict[str, Entry] = {name: tensors.entries[name] for name in names}
        self.read = tensors.read


def count_parameters(tensors: Tensors) -> int:
    """Trained numbers: all but the routers' biases."""
    return sum(entry.size for name, entry in tensors.entries.items() if not name.endswith("bias_E"))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes it at the end, or vanishes. `RequestError` if something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} exists already and is not an empty folder; choose another name")
    with atomic_folder(out) as folder:
        yield folder
