"""Held-out measures and log-probabilities of a model, without gradients, through the same forward as training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from glassbox.model.transformer import Transformer
from glassbox.train.losses import label_logprobs, labelled, labelled_ahead, most_likely, token_nll
from glassbox.train.rows import IGNORE, forward, micro_batches, to_rows


@dataclass
class HeldOut:
    """What is measured on held-out text."""

    nats: float = 0.0
    """Summed negative log-likelihood of all labelled tokens."""
    tokens: int = 0
    """Labelled tokens."""
    accepted: list[int] = field(default_factory=list)
    """For each multi-token block, the targets for which it names the token that the network itself finds most likely
    once it has read that far: what greedy drafting would accept."""
    drafted: list[int] = field(default_factory=list)
    """For each multi-token block, its targets."""

    def __add__(self, other: "HeldOut") -> "HeldOut":
        return HeldOut(
            self.nats + other.nats,
            self.tokens + other.tokens,
            [a + b for a, b in zip_longest(self.accepted, other.accepted, fillvalue=0)],
            [a + b for a, b in zip_longest(self.drafted, other.drafted, fillvalue=0)],
        )


@torch.no_grad()
def measure(model: Transformer, batch: Any, micro_rows: int = 8) -> HeldOut:
    """Read a batch of held-out text, its true tokens given at every position."""
    found, device, depth = HeldOut(), next(model.parameters()).device, len(model.multi_token)
    rows = to_rows(batch)
    for micro in micro_batches(rows, micro_rows, device):
        output, head_VD = forward(model, micro, drafts=depth > 0), model.head_VD
        hidden_ND, labels_N = labelled(output.hidden_BTD, micro["labels"])
        nats = float(token_nll(hidden_ND, head_VD, labels_N).double().sum())
        here = HeldOut(nats, len(labels_N))
        if depth:
            own_BT = most_likely(output.hidden_BTD.flatten(0, 1), head_VD).view(micro["labels"].shape)
            own_BT = torch.cat([own_BT[:, :1], own_BT[:, :-1]], dim=1)  # the network's own choice for each position
            own_BT = own_BT.where(micro["labels"] != IGNORE, IGNORE)
        for k, draft_BTD in enumerate(output.drafts, 1):
            draft_ND, own_N = labelled_ahead(draft_BTD, {**micro, "labels": own_BT}, k + 1)
            here.accepted.append(int((most_likely(draft_ND, head_VD) == own_N).sum()))
            here.drafted.append(len(own_N))
        found = found + here
    return found


def held_out_metrics(
    model: Transformer, held_out: Iterable[tuple[Any, int]], source: str, micro_rows: int = 8
) -> dict[str, float]:
    """`bits_per_byte/<source>`: summed nats / ln 2 / bytes; and, for a network that predicts further ahead,
    `acceptance/<source>` (`acceptance_2/<source>` for the second block, and so on): accepted over drafted. Empty if
    there is no text.

    `held_out` gives batches, each with the UTF-8 bytes that its labelled tokens stand for (`tokens.held_out_rows`).
    Unlike a loss per token, bits per byte compare across tokenizers.
    """
    found, text_bytes = HeldOut(), 0
    for batch, batch_bytes in held_out:
        found += measure(model, batch, micro_rows)
        text_bytes += batch_bytes
    if not text_bytes:
        return {}
    metrics = {f"bits_per_byte/{source}": found.nats / math.log(2) / text_bytes}
    for k, (accepted, drafted) in enumerate(zip(found.accepted, found.drafted, strict=True), 1):
        metrics[f"{acceptance_name(k)}/{source}"] = accepted / max(1, drafted)
    return metrics


def acceptance_name(block: int) -> str:
    """What the acceptance of the multi-token block (1 is the first) is called."""
    return "acceptance" if block == 1 else f"acceptance_{block}"


@torch.no_grad()
def logprobs_of_labels(model: Transformer, batch: Any, micro_rows: int = 8, temperature: float = 1.0) -> Tensor:
    """log p of each label in nats at its own position, at `temperature`; in the shape of `labels`, 0 where there is
    none; in memory.

    The reference of DPO (sum it over the last dimension) and of GRPO's divergence: what the objective computes for
    the same weights, so that log-ratios start at 0.
    """
    rows = to_rows(batch)
    result = torch.zeros(rows["labels"].shape)
    start, device = 0, next(model.parameters()).device
    for micro in micro_batches(rows, micro_rows, device):
        hidden_BTD, labels_BT = forward(model, micro).hidden_BTD, micro["labels"].flatten(0, -2)
        logprobs = label_logprobs(hidden_BTD / temperature, model.head_VD, labels_BT).view(micro["labels"].shape)
        result[start : start + len(logprobs), ..., : logprobs.shape[-1]] = logprobs.cpu()
        start += len(logprobs)
    return result
