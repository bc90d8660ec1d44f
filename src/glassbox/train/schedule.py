"""The learning rate as a pure function of how much has been read."""

import math

from glassbox.recipe.optimizer import Schedule


def factor(schedule: Schedule, done: float, step: float, total: float) -> float:
    """The share of the peak rate for a step that reads `step` after `done` of `total` (tokens, or steps of size 1).

    Warm-up rises linearly from `start` and reaches 1 with its last step. Decay starts at 1 and would reach `floor` at
    `total`, so that the last step still moves.
    """
    warmup = _length(schedule.warmup, total)
    if done < warmup:
        return schedule.start + (1 - schedule.start) * min(1.0, (done + step) / warmup)
    if schedule.shape == "constant":
        return 1.0
    decay = min(_length(schedule.decay, total), total - warmup)
    gone = max(0.0, 1 - (total - done) / decay) if decay > 0 else 0.0
    if schedule.shape == "exponential":
        return schedule.floor**gone
    left = {"linear": 1 - gone, "cosine": (1 + math.cos(math.pi * gone)) / 2, "sqrt": 1 - math.sqrt(gone)}
    return schedule.floor + (1 - schedule.floor) * left[schedule.shape]


def _length(given: float, total: float) -> float:
    """A share of the whole, or if above 1 an amount."""
    return given * total if given <= 1 else given
