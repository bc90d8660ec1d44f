"""Held-out measures and log-probabilities of a model, without gradients, through the same forward as training."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from glassbox.model.transformer import Transformer
from glassbox.train.losses import label_logprobs, labelled, token_nll
from glassbox.train.rows import forward, labelled_tokens, micro_batches, to_rows


@torch.no_grad()
def summed_nats(model: Transformer, batches: Iterable[Any], micro_rows: int = 8) -> tuple[float, int]:
    """The negative log-likelihood of all labelled tokens in nats, and how many they are."""
    nats, tokens, device = 0.0, 0, next(model.parameters()).device
    for batch in batches:
        rows = to_rows(batch)
        tokens += labelled_tokens(rows)
        for micro in micro_batches(rows, micro_rows, device):
            hidden_ND, labels_N = labelled(forward(model, micro).hidden_BTD, micro["labels"])
            nats += float(token_nll(hidden_ND, model.head_VD, labels_N).double().sum())
    return nats, tokens


def bits_per_byte(model: Transformer, held_out: Iterable[tuple[Any, int]], micro_rows: int = 8) -> float | None:
    """Bits that the model needs for a byte of text: summed nats / ln 2 / bytes; None if there is no text.

    `held_out` gives batches, each with the UTF-8 bytes that its labelled tokens stand for (`tokens.held_out_rows`).
    Unlike a loss per token, the measure compares across tokenizers.
    """
    nats, text_bytes = 0.0, 0
    for batch, batch_bytes in held_out:
        nats += summed_nats(model, [batch], micro_rows)[0]
        text_bytes += batch_bytes
    return nats / math.log(2) / text_bytes if text_bytes else None


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
