"""A pipeline's order of work played through without a network: what waits for what, idle time, activations kept.

Forward, gradient of the input and gradient of the weights of a stage take one unit each, a backward pass two; sending
takes nothing. `python -m glassbox.train.parallel.simulate` prints the table of docs/parallel.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from glassbox.recipe.loop import Parallel
from glassbox.train.parallel.schedules import BACKWARD, FORWARD, INPUT, WEIGHT, Action, actions, fitting

SCHEDULES = ("1F1B", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
UNITS = {FORWARD: 1, BACKWARD: 2, INPUT: 1, WEIGHT: 1}


@dataclass(frozen=True)
class Played:
    """How a step went."""

    units: int
    """From the first stage's start to the last one's end."""
    busy: list[int]
    """Of each process."""
    peak: list[float]
    """Activations that each process keeps at most, in micro-batches of all its layers."""

    @property
    def idle(self) -> float:
        """Share of the processes' time in which they wait."""
        return 1 - sum(self.busy) / (self.units * len(self.busy))


def steps(action: Action) -> tuple[Action, ...]:
    """The action itself, or the two of a pair."""
    return (action,) if action.sub_actions is None else action.sub_actions


def needs(action: Action, stages: int) -> list[tuple[Action, ...]]:
    """For each thing that an action waits for, the actions that provide it."""
    stage, kind, micro, _ = action
    if kind == FORWARD:
        return [(Action(stage - 1, FORWARD, micro),)] if stage else []
    if kind == WEIGHT:
        return [(Action(stage, INPUT, micro),)]
    after = (Action(stage + 1, BACKWARD, micro), Action(stage + 1, INPUT, micro))
    return [(Action(stage, FORWARD, micro),), *([after] if stage + 1 < stages else [])]


def play(orders: list[list[Action]], stages: int) -> Played:
    """Each process takes its actions in its order, each as soon as what it needs is there; the two of a pair start
    together. Raises ValueError if they wait for each other."""
    done: dict[Action, int] = {}
    clock, busy, kept, peak = ([0] * len(orders) for _ in range(4))
    left = [list(order) for order in orders]

    def start_of(action: Action) -> int | None:
        times = [
            min((done[one] for one in providers if one in done), default=None)
            for step in steps(action)
            for providers in needs(step, stages)
        ]
        return None if None in times else max((time for time in times if time is not None), default=0)

    while any(left):
        moved = False
        for process, order in enumerate(left):
            while order and (start := start_of(order[0])) is not None:
                moved, time = True, max(start, clock[process])
                for step in steps(order.pop(0)):
                    time += UNITS[step.computation_type]
                    busy[process] += UNITS[step.computation_type]
                    done[step] = time
                    kept[process] += {FORWARD: 1, BACKWARD: -1, WEIGHT: -1, INPUT: 0}[step.computation_type]
                    peak[process] = max(peak[process], kept[process])
                clock[process] = time
        if not moved:
            raise ValueError(f"processes wait for each other: {[order[0] for order in left if order]}")
    return Played(max(clock), busy, [most * len(orders) / stages for most in peak])


def table(pipeline: int, counts: tuple[int, ...]) -> Iterator[str]:
    """Lines of a Markdown table: idle time of every schedule, and the first and the fullest process's activations."""
    yield "| schedule | " + " | ".join(f"idle, {count} micro-batches" for count in counts) + " | activations kept |"
    yield "|---|" + "---|" * (len(counts) + 1)
    for schedule, overlap in [*((name, False) for name in SCHEDULES), ("Interleaved1F1B", True)]:
        given = {"schedule": schedule, "overlap": overlap}
        plan = Parallel.model_validate({"pipeline": pipeline, "zero": 2, "expert": 2, **given})
        played = [play(actions(plan, fitting(plan, count)), plan.stages) for count in counts]
        name = plan.schedule + (" with `overlap`" if plan.overlap else "")
        idle = " | ".join(f"{one.idle:.0%}" for one in played)
        yield f"| {name} | {idle} | {max(played[-1].peak):g} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table(4, (8, 16, 32)))
