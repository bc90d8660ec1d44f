"""What a batch is: named tensors with rows on dimension 0, cut into micro-batches by the loop.

Every batch has `ids` and `labels`, (rows, T) int64; `labels[:, t]` is the target *at* position t, -100 is no target.
`positions` and `documents` (rows, T) are needed when rows are packed; a negative document number marks padding.
Objectives add what they need: advantages (rows,), reference log-probabilities (rows, T), and so on. A row may hold
several sequences that must stay together: a preference pair is one row of ids (rows, 2, T), and the network sees
(rows * 2, T).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassbox.model.transformer import Output, Transformer

IGNORE = -100
"""The label of a position without a target."""
PADDING = -1
"""The document of padding."""

Rows = dict[str, Tensor]


def to_rows(batch: Any) -> Rows:
    """A dataclass (`tokens.batches.Batch`) or mapping of arrays as tensors in memory; floats become fp32."""
    named = batch if isinstance(batch, Mapping) else {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    rows = {name: value if isinstance(value, Tensor) else _tensor(value) for name, value in named.items()}
    if len({len(value) for value in rows.values()}) != 1:
        raise ValueError(f"arrays of a batch differ in rows: { {name: len(value) for name, value in rows.items()} }")
    return rows


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.tensor(array)
    return tensor.float() if tensor.is_floating_point() else tensor


def rounds(rows: Rows, sequences: int) -> int:
    """Micro-batches that rows are cut into."""
    return -(-len(rows["ids"]) // rows_of(rows, sequences))


def rows_of(rows: Rows, sequences: int) -> int:
    """Rows of a micro-batch of `sequences` sequences."""
    per_row = rows["ids"][0].numel() // rows["ids"].shape[-1] if len(rows["ids"]) else 1
    return max(1, sequences // per_row)


def micro_batches(rows: Rows, sequences: int, device: torch.device, cut: bool = True) -> Iterator[Rows]:
    """Cut rows into micro-batches of at most `sequences` sequences (but one row at least), moved to `device`.

    Columns after the micro-batch's last label are cut off (unless not `cut`): in a causal network they can change
    nothing before them, and rows sorted by length then cost little padding.
    """
    size = rows_of(rows, sequences)
    for start in range(0, len(rows["ids"]), size):
        micro = {name: value[start : start + size] for name, value in rows.items()}
        shape = micro["ids"].shape
        width = _used_width(micro["labels"]) if cut else shape[-1]
        yield {
            name: (value[..., :width] if value.shape == shape else value).to(device, non_blocking=True)
            for name, value in micro.items()
        }


def forward(model: Transformer, micro: Rows, drafts: bool = False, state_BTD: Tensor | None = None) -> Output:
    """Run the network on a micro-batch, its multi-token blocks too with `drafts`; sequences that share a row become
    rows of their own."""
    flat = {name: micro[name].flatten(0, -2) for name in ("ids", "positions", "documents") if name in micro}
    return model(flat["ids"], flat.get("positions"), flat.get("documents"), drafts=drafts, state_BTD=state_BTD)


def columns_output(
    model: Transformer, micro: Rows, drafts: bool = False, state_BTD: Tensor | None = None
) -> tuple[Output, Rows]:
    """Run the network on a micro-batch of whole rows: the output for this process's columns, and the micro-batch with
    their targets."""
    return forward(model, micro, drafts, state_BTD), own_targets(model, micro, drafts)


def own_targets(model: Transformer, micro: Rows, drafts: bool) -> Rows:
    """The micro-batch with the targets of this process's columns, where it has not all of them."""
    if model.columns.count == 1:
        return micro
    return with_targets(micro, 1 + len(model.multi_token) * drafts, model.columns.own)


def _used_width(labels: Tensor, multiple: int = 32) -> int:
    """Columns up to the last label, rounded up so that only few widths occur."""
    columns = (labels != IGNORE).flatten(0, -2).any(0).nonzero()
    last = int(columns[-1]) + 1 if len(columns) else 1
    return min(labels.shape[-1], -(-last // multiple) * multiple)


def labelled_tokens(rows: Rows) -> int:
    """Tokens with a target: what a per-token loss is divided by, counted over the whole step."""
    return int((rows["labels"][..., 1:] != IGNORE).sum())


def has_target(rows: Rows, distance: int) -> Tensor:
    """Which places hold a label and, `distance` places before it, a token of the same document, in the shape of
    `labels`: what a block can predict from that far back."""
    found = rows["labels"] != IGNORE
    found[..., :distance] = False
    if "documents" in rows:
        documents = rows["documents"]
        found[..., distance:] &= documents[..., distance:] == documents[..., :-distance]
    return found


def targets(rows: Rows, distance: int) -> Tensor:
    """The label that each place has to predict, `distance` places on, in the shape of `labels`; -100: none."""
    labels = rows["labels"].where(has_target(rows, distance), IGNORE)
    return torch.cat([labels[..., distance:], labels.new_full((*labels.shape[:-1], distance), IGNORE)], dim=-1)


def with_targets(rows: Rows, distances: int, own: Callable[[Tensor], Tensor]) -> Rows:
    """The rows with a process's columns of what is to be predicted 1 to `distances` places on, under `target_1` ...:
    what lies ahead of its last columns is among the columns of another."""
    return rows | {f"target_{d}": own(targets(rows, d)) for d in range(1, distances + 1)}


def empty_row(rows: Rows) -> Rows:
    """A row of padding in the form of a step's rows."""
    filled = {"labels": IGNORE, "documents": PADDING}
    return {name: value.new_full((1, *value.shape[1:]), filled.get(name, 0)) for name, value in rows.items()}


def row_count(rows: Rows) -> int:
    """Rows: what a loss per pair or per completion is divided by, counted over the whole step."""
    return len(rows["ids"])


def real_tokens(rows: Rows) -> int:
    """Tokens that are not padding (a negative number in `documents` marks padding)."""
    return int((rows["documents"] >= 0).sum()) if "documents" in rows else rows["ids"].numel()
