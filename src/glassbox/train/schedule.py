"""The learning rate as a pure function of the step."""

import math

from glassbox.recipe.training import Schedule


def factor(schedule: Schedule, step: int, total: int) -> float:
    """The share of the peak rate at `step` (0 is the first) of `total` steps.

    Warm-up rises linearly and reaches 1 at its last step. Decay starts at 1 and would reach `floor` at step `total`, so
    that the last step still moves. wsd (warm-up, stable, decay) is MiniCPM's, arXiv:2404.06395 section 4.
    """
    warmup = round(schedule.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.shape == "constant":
        return 1.0
    decay = total - warmup
    if schedule.shape == "wsd":
        decay = min(decay, round(schedule.decay * total))
    left = min(1.0, (total - step) / decay) if decay else 1.0
    shape = (1 - math.cos(math.pi * left)) / 2 if schedule.shape == "cosine" else left
    return schedule.floor + (1 - schedule.floor) * shape
