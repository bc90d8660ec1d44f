"""The objective of group-relative policy optimisation, GRPO (arXiv:2402.03300), and its advantages.

Letters: N groups, G completions of a group, B completions (a row each), T positions, D model width, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from glassbox.model.transformer import Output
from glassbox.recipe.training import Grpo
from glassbox.train.losses import label_logprobs
from glassbox.train.rows import IGNORE, Rows, labelled_tokens, row_count
from glassbox.train.step import Objective

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this distance from 0 before exp."""
K3_LIMIT = 10.0
"""Largest divergence of one token that enters the loss."""
STD_GUARD = 1e-6
"""Added to a group's standard deviation."""


def group_advantages(reward_NG: Tensor, kind: str) -> Tensor:
    """Rewards of N groups of G completions -> advantages, (N, G).

    grpo: (r - mean) / (std + 1e-6), unbiased std. dr_grpo: r - mean (arXiv:2503.20783). rloo: r minus the mean of the
    group's others (arXiv:2402.14740). A reward that could not be computed is NaN: it gets 0 and the group's statistics
    leave it out. A group whose rewards are all equal, or with fewer than two of them, gets 0 throughout.
    Raises ValueError for groups of one: there is nothing to compare.
    """
    if reward_NG.shape[1] < 2:
        raise ValueError("a group needs at least 2 completions: the advantage compares them with one another")
    taught_N1, known_NG = informative(reward_NG)[:, None], ~reward_NG.isnan()
    reward_NG = reward_NG.nan_to_num(0.0)
    count_N1 = known_NG.sum(1, keepdim=True).clamp_min(2)
    difference_NG = (reward_NG - reward_NG.sum(1, keepdim=True) / count_N1) * known_NG
    if kind == "grpo":
        std_N1 = (difference_NG.square().sum(1, keepdim=True) / (count_N1 - 1)).sqrt()
        advantage_NG = difference_NG / (std_N1 + STD_GUARD)
    elif kind == "rloo":
        advantage_NG = difference_NG * count_N1 / (count_N1 - 1)
    elif kind == "dr_grpo":
        advantage_NG = difference_NG
    else:
        raise ValueError(f"unknown advantage {kind!r}: grpo, dr_grpo or rloo")
    return advantage_NG * taught_N1


def informative(reward_NG: Tensor) -> Tensor:
    """Whether a group's known rewards (those not NaN) differ, (N,); the other groups teach nothing."""
    return reward_NG.nan_to_num(nan=-torch.inf).amax(1) > reward_NG.nan_to_num(nan=torch.inf).amin(1)


def clipped_loss(
    logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Loss of each token, and whether the clipping stopped its gradient; all of one shape.

    -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A) with ratio = p / p_old (arXiv:1707.06347); DAPO
    (arXiv:2503.14476) sets the two sides apart.
    """
    ratio = (logprob - old_logprob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    free, held = ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    return -torch.minimum(free, held), held < free


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) at each sampled token: e^-d + d - 1 >= 0, d = log p - log p_reference."""
    difference = (logprob - reference_logprob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return ((-difference).exp() + difference - 1).clamp_max(K3_LIMIT)


def grpo(settings: Grpo, temperature: float = 1.0) -> Objective:
    """GRPO over completions; the loss counts what `denominator(settings)` counts.

    Rows, one completion each: `ids`, `labels` (B, T), the sampled tokens alone labelled; `advantage` (B,);
    `old_logprob` (B, T), log p at sampling time at each label's position, may be left out when each batch is used for
    one update (the ratio is then 1, its gradient that of log p); `reference_logprob` (B, T) if `settings.kl` > 0.
    `temperature` is the sampling's: probabilities of all policies are those at that temperature. Metrics are means like
    the loss: `entropy` (nats, estimated by -log p of the sampled tokens), `clip_share`, and `kl`.
    """

    def objective(output: Output, head_VD: Tensor, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        labels_BT = rows["labels"]
        logprob_BT = label_logprobs(output.hidden_BTD / temperature, head_VD, labels_BT)
        old_BT = rows.get("old_logprob", logprob_BT.detach())
        loss_BT, clipped_BT = clipped_loss(
            logprob_BT, old_BT, rows["advantage"][:, None], settings.clip_low, settings.clip_high
        )
        weight_BT = token_weights(labels_BT, settings)
        metrics = {
            "entropy": -(weight_BT * logprob_BT).sum(),
            "clip_share": (weight_BT * clipped_BT).sum(),
        }
        if settings.kl:
            kl_BT = k3(logprob_BT, rows["reference_logprob"])
            loss_BT = loss_BT + settings.kl * kl_BT
            metrics["kl"] = (weight_BT * kl_BT).sum()
        return (weight_BT * loss_BT).sum(), metrics

    return objective


def token_weights(labels_BT: Tensor, settings: Grpo) -> Tensor:
    """What each token's loss is multiplied by before it is summed, (B, T) fp32, 0 without a label.

    token: 1, every token of the step alike (DAPO). sequence: 1 / tokens of its completion (original GRPO).
    """
    weight_BT = (labels_BT != IGNORE).float()
    if settings.aggregate == "sequence":
        weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp_min(1)
    return weight_BT


def denominator(settings: Grpo) -> Callable[[Rows], float]:
    """What `fit` divides the step's summed loss by: its sampled tokens, or its completions."""
    return labelled_tokens if settings.aggregate == "token" else row_count
