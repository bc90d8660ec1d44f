"""Log-probabilities of given tokens with the likeliest alternatives, from one plain forward pass.

Letters: T tokens, K alternatives, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from glassbox.model.transformer import Transformer

CHUNK = 256
"""Positions whose logits are held at once."""


class Scored(NamedTuple):
    """One token after the first."""

    logprob: float
    alternatives: list[tuple[int, float]]
    """(id, log-probability), likeliest first."""


@torch.inference_mode()
def score_with_alternatives(model: Transformer, ids: Sequence[int], count: int) -> list[Scored]:
    """T ids -> T - 1 scores: token t given those before it, with the `count` likeliest tokens at its place."""
    ids_1T = torch.tensor([list(ids)], device=model.embedding.weight.device)
    hidden_TD = model(ids_1T).hidden_BTD[0, :-1]
    scored = []
    for start in range(0, len(ids) - 1, CHUNK):
        logprob_TV = (hidden_TD[start : start + CHUNK] @ model.head_VD.T).float().log_softmax(-1)
        targets_T1 = ids_1T[0, start + 1 : start + 1 + len(logprob_TV), None]
        own = logprob_TV.gather(1, targets_T1)[:, 0].tolist()
        best = logprob_TV.topk(count, dim=-1)
        rows = zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
        scored += [Scored(logprob, list(zip(i_K, lp_K, strict=True))) for logprob, i_K, lp_K in rows]
    return scored
