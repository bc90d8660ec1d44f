"""From logits to a token, for many sequences at once.

Order of operations, fixed: logits in fp32 -> divide by the temperature -> keep the `top_k` most likely -> of those
keep the fewest whose probability reaches `top_p`, at least one -> draw. Temperature 0 takes the most likely token (the
lowest id wins a tie) and ignores the rest. The log-probability that is returned is that of the unmodified distribution.

Letters: N sequences, V vocabulary, C candidates kept after sorting.
"""

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 256
"""How many of the most likely tokens are sorted at first; all are when these do not reach a row's `top_p`."""


def uniforms(seed_N: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each (seed, index): a pure function (two rounds of splitmix64), float64.

    A sequence's draws depend on its own seed and on how many it drew before, so on no neighbour and no order.
    """
    mixed = _splitmix64(_splitmix64(seed_N.astype(np.uint64)) ^ index_N.astype(np.uint64))
    return (mixed >> np.uint64(16)).astype(np.float64) * 2.0**-48


def _splitmix64(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(
    logits_NV: Tensor, temperature_N: Tensor, top_k_N: Tensor, top_p_N: Tensor, uniform_N: Tensor
) -> tuple[Tensor, Tensor]:
    """A token for each row and its log-probability: int64 (N,), fp32 (N,).

    `top_k` 0 keeps all. Each row's draw is the inverse of its distribution at `uniform_N` (float64 in [0, 1)).
    """
    logits_NV = logits_NV.float()
    id_N = logits_NV.argmax(dim=-1)
    warm_N = temperature_N > 0
    if warm_N.any():
        filtered_N = warm_N & ((top_k_N > 0) | (top_p_N < 1))
        for rows_N, draw in ((warm_N & ~filtered_N, _draw), (filtered_N, _draw_filtered)):
            if rows_N.all():
                id_N = draw(logits_NV, temperature_N, top_k_N, top_p_N, uniform_N)
            elif rows_N.any():
                id_N[rows_N] = draw(
                    logits_NV[rows_N], temperature_N[rows_N], top_k_N[rows_N], top_p_N[rows_N], uniform_N[rows_N]
                )
    logprob_N = logits_NV.gather(1, id_N[:, None]).squeeze(1) - logits_NV.logsumexp(dim=-1)
    return id_N, logprob_N


def _draw(logits_NV: Tensor, temperature_N: Tensor, top_k_N: Tensor, top_p_N: Tensor, uniform_N: Tensor) -> Tensor:
    return _inverse(_heated(logits_NV, temperature_N).exp_(), uniform_N)


def _draw_filtered(
    logits_NV: Tensor, temperature_N: Tensor, top_k_N: Tensor, top_p_N: Tensor, uniform_N: Tensor
) -> Tensor:
    weight_NV = _heated(logits_NV, temperature_N).exp_()
    V = weight_NV.shape[1]
    for C in (min(CANDIDATES, V), V):
        weight_NC, id_NC = weight_NV.topk(C, dim=-1)
        by_count_NC = torch.arange(C, device=id_NC.device) < torch.where(top_k_N > 0, top_k_N, V)[:, None]
        kept_NC = weight_NC * by_count_NC
        whole_N = torch.where(top_k_N > 0, kept_NC.sum(dim=-1), weight_NV.sum(dim=-1))
        reach_NC = kept_NC.cumsum(dim=-1)
        # a row is settled when its prefix ends among the candidates: by count, or because they reach top_p
        settled_N = torch.where(top_k_N > 0, top_k_N <= C, reach_NC[:, -1] >= top_p_N * whole_N)
        if C == V or bool(settled_N.all()):
            break
    kept_NC = kept_NC * (reach_NC - kept_NC < (top_p_N * whole_N)[:, None])
    return id_NC.gather(1, _inverse(kept_NC, uniform_N)[:, None]).squeeze(1)


def _heated(logits_NV: Tensor, temperature_N: Tensor) -> Tensor:
    """Logits over temperature, shifted so that the largest is 0."""
    return (logits_NV - logits_NV.amax(dim=-1, keepdim=True)).div_(temperature_N[:, None])


def _inverse(weight_NC: Tensor, uniform_N: Tensor) -> Tensor:
    """The first column where the cumulative weight exceeds the uniform's share of the whole; never one of weight 0.

    Summed in float64: in fp32 the share of a large vocabulary's tail would be lost, and a uniform near 1 could fall off
    the end.
    """
    reach_NC = weight_NC.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(reach_NC, (uniform_N * reach_NC[:, -1])[:, None], right=True).squeeze(1)
