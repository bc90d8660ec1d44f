"""The order of work in a pipeline: PyTorch's schedules, and interleaved 1F1B as dots.llm1 ran it."""

from types import SimpleNamespace
from typing import Any

from torch.distributed.pipelining import schedules as torch_schedules
from torch.distributed.pipelining.schedules import ScheduleInterleaved1F1B, get_schedule_class

from glassbox.recipe.loop import Parallel

FORWARD, BACKWARD = torch_schedules.FORWARD, torch_schedules.FULL_BACKWARD
INPUT, WEIGHT = torch_schedules.BACKWARD_INPUT, torch_schedules.BACKWARD_WEIGHT
PAIR = torch_schedules.OVERLAP_F_B
Action = torch_schedules._Action
"""Kind, stage, micro-batch; a pair's two actions, forward first."""


class Paired1F1B(ScheduleInterleaved1F1B):
    """Interleaved 1F1B with one more forward step in every process's warm-up, after which the forward and the backward
    pass of a slot belong to different micro-batches, do not wait for each other and can run at once (dots.llm1,
    arXiv:2506.05767, section 3.1)."""

    def _calculate_single_rank_operations(self, rank: int) -> list[Action | None]:
        p, v, together = self.pp_group_size, self.n_local_stages, self.microbatches_per_round
        total = v * self._n_microbatches
        forward, backward = [], []
        for step in range(total):
            turn, place = divmod(step, together)
            micro = turn // v * together + place
            forward.append(Action(turn % v * p + rank, FORWARD, micro))
            backward.append(Action((v - 1 - turn % v) * p + rank, BACKWARD, micro))
        warmup = min((v - 1) * together + 2 * (p - 1 - rank) + 1, total)
        pairs = [Action(-1, PAIR, None, both) for both in zip(forward[warmup:], backward, strict=False)]
        return [*forward[:warmup], *pairs, *backward[len(pairs) :]]


def schedule_class(plan: Parallel) -> Any:
    """The plan's schedule: a class of `torch.distributed.pipelining`."""
    if plan.overlap and plan.schedule == "Interleaved1F1B":
        return Paired1F1B
    return get_schedule_class(plan.schedule)


def fitting(plan: Parallel, count: int) -> int:
    """The least number of micro-batches, `count` or more, that the plan's schedule can take."""
    if plan.schedule in ("1F1B", "DualPipeV"):
        return max(count, plan.stages)
    if plan.schedule.startswith("Interleaved"):
        while count % max(1, count // plan.pipeline):
            count += 1
    return count


def actions(plan: Parallel, count: int) -> list[list[Action]]:
    """What each process of the pipeline does with `count` micro-batches, in its order. Raises ValueError for a number
    that the schedule cannot take."""
    if plan.schedule == "1F1B":  # torch's description of it is not what it does
        return [_one_forward_one_backward(count, plan.pipeline - process, process) for process in range(plan.pipeline)]
    stage = SimpleNamespace(num_stages=plan.stages, group_size=plan.pipeline, group_rank=0, stage_index=0, submod=None)
    order: dict[int, list[Action | None]] = schedule_class(plan)([stage, stage], count).pipeline_order
    return [[action for action in order[process] if action is not None] for process in range(plan.pipeline)]


def _one_forward_one_backward(count: int, warmup: int, stage: int) -> list[Action]:
    if count < warmup:
        raise ValueError(f"1F1B needs {warmup} micro-batches, not {count}")
    found = [Action(stage, FORWARD, micro) for micro in range(warmup)]
    for micro in range(count):
        found.append(Action(stage, BACKWARD, micro))
        if micro + warmup < count:
            found.append(Action(stage, FORWARD, micro + warmup))
    return found
