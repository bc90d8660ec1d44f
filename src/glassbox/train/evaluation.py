"""Held-out measures and log-probabilities of a model, without gradients, through the same forward as training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from glassbox.model.transformer import Output, Transformer
from glassbox.train.losses import label_logprobs, labelled_ahead, most_likely, token_nll
from glassbox.train.parallel.place import Placed
from glassbox.train.rows import IGNORE, Rows, to_rows


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
def measure(model: Placed | Transformer, batch: Any, micro_rows: int = 8) -> HeldOut:
    """Read a batch of held-out text, its true tokens given at every position. The processes of a plan share its rows
    out; drafts are measured where each has whole rows."""
    placed = model if isinstance(model, Placed) else Placed([model])
    ranks, ahead = placed.ranks, placed.model.network.multi_token
    depth = ahead.depth if ahead and ranks.columns.count == 1 else 0
    found = HeldOut(accepted=[0] * depth, drafted=[0] * depth)
    mine = {name: value[list(ranks.share.of(len(value)))] for name, value in to_rows(batch).items()}
    for output, own in placed.outputs(mine, micro_rows, drafts=depth > 0):
        head_VD = placed.parts[-1].head_VD
        hidden_ND, labels_N = labelled_ahead(output.hidden_BTD, own, 1)
        nats = float(token_nll(hidden_ND, head_VD, labels_N).double().sum())
        found = found + HeldOut(nats, len(labels_N)) + _drafted(output, head_VD, own)
    nats, tokens, *drafts = ranks.total([found.nats, found.tokens, *found.accepted, *found.drafted])
    counts = [int(count) for count in drafts]
    return HeldOut(nats, int(tokens), counts[:depth], counts[depth:])


def _drafted(output: Output, head_VD: Tensor, micro: Rows) -> HeldOut:
    """How often each multi-token block names what the network itself finds most likely."""
    found = HeldOut()
    if output.drafts:
        own_BT = most_likely(output.hidden_BTD.flatten(0, 1), head_VD).view(micro["labels"].shape)
        own_BT = torch.cat([own_BT[:, :1], own_BT[:, :-1]], dim=1)  # the network's own choice for each position
        own_BT = own_BT.where(micro["labels"] != IGNORE, IGNORE)
    for k, draft_BTD in enumerate(output.drafts, 1):
        draft_ND, own_N = labelled_ahead(draft_BTD, {**micro, "labels": own_BT}, k + 1)
        found.accepted.append(int((most_likely(draft_ND, head_VD) == own_N).sum()))
        found.drafted.append(len(own_N))
    return found


def held_out_metrics(
    model: Placed | Transformer, held_out: Iterable[tuple[Any, int]], source: str, micro_rows: int = 8
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
def logprobs_of_labels(
    model: Placed | Transformer, batch: Any, micro_rows: int = 8, temperature: float = 1.0
) -> Tensor:
    """log p of each label in nats at its own position, at `temperature`; in the shape of `labels`, 0 where there is
    none; in memory. The processes of a plan share the rows out, and each gets the whole answer.

    The reference of DPO (sum it over the last dimension) and of GRPO's divergence: what the objective computes for
    the same weights, so that log-ratios start at 0.
    """
    placed = model if isinstance(model, Placed) else Placed([model])
    ranks = placed.ranks
    rows = to_rows(batch)
    mine = ranks.share.of(len(rows["ids"]))
    result = torch.zeros(rows["labels"].shape, device=placed.device)
    start = mine.start
    for output, own in placed.outputs({name: value[list(mine)] for name, value in rows.items()}, micro_rows):
        network = placed.parts[-1]
        hidden_BTD, shape = output.hidden_BTD / temperature, own["labels"].shape
        if ranks.columns.count == 1:
            logprobs = label_logprobs(hidden_BTD, network.head_VD, own["labels"].flatten(0, -2)).view(shape)
        else:
            logprobs = torch.zeros(shape, device=placed.device)
            nll_BT = token_nll(hidden_BTD.flatten(0, 1), network.head_VD, own["target_1"].flatten())
            columns = network.columns.own(torch.arange(shape[-1])[None])[0]
            ahead = (columns + 1).clamp(max=shape[-1] - 1)  # the last column predicts nothing: its value is 0
            logprobs.view(-1, shape[-1]).index_add_(1, ahead.to(placed.device), -nll_BT.view(-1, len(columns)))
        kept = result[start : min(start + len(logprobs), mine.stop)]
        kept[..., : shape[-1]] = logprobs[: len(kept)]
        start += len(logprobs)
    return ranks.sum_(result).cpu()
