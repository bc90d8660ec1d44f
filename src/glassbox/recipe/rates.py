"""The learning rate as a pure function of how much has been read."""

import math

from glassbox.recipe.optimizer import Schedule
from glassbox.recipe.training import PretrainStage


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


def phase_rate(stage: PretrainStage, number: int, done: float, step: float) -> float:
    """The learning rate of a step that reads `step` tokens after `done` tokens of phase `number`.

    A phase's own schedule spans its tokens; the stage's spans those of all phases without one, one after another.
    """
    schedule, before, total = _stretch(stage, number)
    peak = (stage.phases[number].optimizer or stage.optimizer).lr
    return peak * factor(schedule, before + done, step, total)


def highest_and_last(stage: PretrainStage, number: int) -> tuple[float, float]:
    """The highest learning rate of a phase's steps and that of its last step."""
    phase = stage.phases[number]
    schedule, before, total = _stretch(stage, number)
    first, last = (level.rows * phase.context for level in (phase.levels[0], phase.levels[-1]))
    rest = phase.levels[-1].last - phase.levels[-1].first
    end = phase.total_tokens - (rest % phase.levels[-1].rows * phase.context or last)
    warm = min(max(0.0, _length(schedule.warmup, total) - before), end)
    at_end = phase_rate(stage, number, end, phase.total_tokens - end)
    return max(phase_rate(stage, number, 0, first), phase_rate(stage, number, warm, first), at_end), at_end


def _stretch(stage: PretrainStage, number: int) -> tuple[Schedule, int, int]:
    """A phase's schedule, the tokens before the phase in the stretch that it spans, and those of the whole stretch."""
    phase = stage.phases[number]
    alike = [number] if phase.schedule else [n for n, one in enumerate(stage.phases) if not one.schedule]
    before = sum(stage.phases[n].total_tokens for n in alike if n < number)
    return phase.schedule or stage.schedule, before, sum(stage.phases[n].total_tokens for n in alike)
