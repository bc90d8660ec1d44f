"""A step's micro-batches through the stretches of layers of a pipeline.

The order of work is PyTorch's (`torch.distributed.pipelining`): 1F1B and interleaved 1F1B (arXiv:2104.04473),
interleaved zero bubble (arXiv:2401.10241), ZBV (arXiv:2405.15362), and DualPipeV (half of arXiv:2412.19437's DualPipe).
Every process of a pipeline has the rows, so only states travel forward and their gradients back; what a schedule asks
for by the number of a micro-batch, a stage looks up.

Letters: B sequences of a micro-batch, T columns of this process, D model width, L layers with experts, E experts.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from glassbox.model.transformer import Output, Transformer
from glassbox.recipe.stretches import embedded_twice, stage_numbers
from glassbox.train.parallel.overlap import CutStage, together
from glassbox.train.parallel.ranks import Ranks
from glassbox.train.parallel.schedules import PAIR, fitting, schedule_class
from glassbox.train.parallel.work import Score, Stage, Work
from glassbox.train.rows import Rows, columns_output, empty_row, rounds, rows_of


class Pipeline:
    """One process's place in a pipeline."""

    def __init__(self, parts: list[Transformer], ranks: Ranks):
        self.parts, self.ranks, self.plan = parts, ranks, ranks.plan
        self.network, stages = parts[0].network, ranks.plan.stages
        self.numbers = stage_numbers(self.plan, ranks.index("pipeline"))
        self.group = ranks.group("pipeline")
        holders = {number: n for n in range(self.plan.pipeline) for number in stage_numbers(self.plan, n)}
        self.holders = [dist.get_global_rank(self.group, holders[number]) for number in range(stages)]
        """The process (of the world) that has each stage."""
        self._schedules: dict[tuple[int, ...], tuple[Any, list[Stage]]] = {}
        """The latest, by number and shape of its micro-batches."""

    @property
    def ends(self) -> bool:
        """Whether the network ends in this process."""
        return self.parts[-1].ends

    def micro_batches(self, rows: Rows, micro_rows: int) -> list[Rows]:
        """A step's rows of this process in micro-batches of one shape, as many on every process and as the schedule can
        take; rows of padding fill them up. Objectives that count rows, not labelled tokens, cannot be trained so."""
        count = fitting(self.plan, int(self.ranks.most([rounds(rows, micro_rows)])[0]))
        return filled(rows, micro_rows, count, self.ranks.device)

    def accumulate(
        self, micros: list[Rows], score: Score, drafts: bool, scale: float = 1.0
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Add the gradient of `scale` times the summed losses to the parameters of this process's stretches.

        Returns the sums that `score` names, as far as they came about here, under the same names on every process of
        the pipeline; and the load (L, E), 0 for layers that are elsewhere (None: no layer has experts).
        """
        schedule, stages = self._schedule(micros)
        work = Work(micros, score, drafts, scale)
        for stage in stages:
            stage.work = work
        numbers = torch.arange(len(micros))
        given = (numbers,) if self.numbers[0] == 0 else ()
        target = {"target": numbers} if self.ends else {}
        schedule.step(*given, number=numbers, return_outputs=False, **target)
        if embedded_twice(self.network, self.plan.stages):
            self._add_up_embedding()
        return self._named(work.totals), self._load(work)

    @torch.no_grad()
    def outputs(self, micros: list[Rows], drafts: bool = False) -> Iterator[tuple[Output, Rows]]:
        """Run micro-batches of any shapes through the network; where it ends gives the output and the rows of each in
        turn, elsewhere nothing. Every process of the pipeline has to go through all of it."""
        sent: list[Any] = []
        states: list[Tensor] = []
        for number, part in zip(self.numbers, self.parts, strict=True):
            came, states = states, []
            for at, micro in enumerate(micros):
                state_BTD = None if number == 0 else self._came(number, micro, came[at] if came else None)
                output, rows = columns_output(part, micro, drafts, state_BTD)
                if part.ends:
                    yield output, rows
                elif number + 1 in self.numbers:
                    states.append(output.state_BTD)
                else:
                    sent.append(dist.isend(output.state_BTD.contiguous(), self.holders[number + 1], self.group))
        for one in sent:
            one.wait()

    def _came(self, number: int, micro: Rows, here_BTD: Tensor | None) -> Tensor:
        """What the stage before `number` made of a micro-batch, here or elsewhere."""
        if here_BTD is not None:
            return here_BTD
        shape = self._state_shape(micro)
        state_BTD = torch.empty(shape, device=self.ranks.device)
        dist.recv(state_BTD, self.holders[number - 1], self.group)
        return state_BTD

    def _state_shape(self, micro: Rows) -> tuple[int, int, int]:
        ids, columns = micro["ids"], self.parts[0].columns.count
        return ids.numel() // ids.shape[-1], ids.shape[-1] // columns, self.network.dim

    def _schedule(self, micros: list[Rows]) -> tuple[Any, list[Stage]]:
        """The schedule for so many micro-batches of this shape."""
        shape = self._state_shape(micros[0])
        key = (len(micros), *shape)
        if key not in self._schedules:
            like = torch.empty(shape, device="meta", requires_grad=True)
            kind = partial(CutStage, experts=self.ranks.group("expert")) if self.plan.overlap else Stage
            stages = [
                kind(part, number, self.plan.stages, like, self.group, self.ranks.device)
                for part, number in zip(self.parts, self.numbers, strict=True)
            ]
            build = schedule_class(self.plan)
            several = self.plan.stages > self.plan.pipeline
            schedule = build(
                stages if several else stages[0], len(micros), loss_fn=lambda loss, number: loss, scale_grads=False
            )
            if self.plan.overlap:
                schedule.register_custom_function(PAIR, together)
            self._schedules = {key: (schedule, stages)}
        return self._schedules[key]

    def _named(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """The totals under all names, which are known where the network ends."""
        names = [list(totals)]
        dist.broadcast_object_list(names, self.holders[-1], self.group)
        zero = torch.zeros((), device=self.ranks.device)
        return {name: totals.get(name, zero) for name in names[0]}

    def _load(self, work: Work) -> Tensor | None:
        experts = self.network.experts
        if experts is None:
            return None
        rows = self.parts[0].expert_layers(work.drafts)
        load_LE = torch.zeros(rows, experts.count, dtype=torch.int64, device=self.ranks.device)
        for number, found in work.loads.items():
            first = self.parts[self.numbers.index(number)].first_load
            load_LE[first : first + len(found)] = found
        return load_LE

    def _add_up_embedding(self) -> None:
        """Give the embedding at the start and its copy at the end the sum of both gradients."""
        held = [
            part.embedding.weight
            for number, part in zip(self.numbers, self.parts, strict=True)
            if number in (0, self.plan.stages - 1)
        ]
        grads = [_gradient(weight) for weight in held]
        if len(grads) == 2:
            grads[0] += grads[1]
            grads[1].copy_(grads[0])
        elif grads:
            other = self.holders[-1 if self.numbers[0] == 0 else 0]
            theirs = torch.empty_like(grads[0])
            both = [
                dist.P2POp(dist.isend, grads[0].clone(), other, self.group),
                dist.P2POp(dist.irecv, theirs, other, self.group),
            ]
            for one in dist.batch_isend_irecv(both):
                one.wait()
            grads[0] += theirs


def _gradient(weight: Tensor) -> Tensor:
    """What this process holds of a weight's gradient, to be changed in place; zeros where there was none."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad


def filled(rows: Rows, sequences: int, count: int, device: str) -> list[Rows]:
    """Rows cut into `count` micro-batches of `sequences` sequences each, moved to the device, rows of padding last."""
    size = rows_of(rows, sequences)
    missing = count * size - len(rows["ids"])
    if missing:
        if "documents" not in rows:
            rows = rows | {"documents": torch.zeros_like(rows["ids"])}
        padding = empty_row(rows)
        rows = {name: torch.cat([value, *[padding[name]] * missing]) for name, value in rows.items()}
    return [
        {name: value[n * size : (n + 1) * size].to(device, non_blocking=True) for name, value in rows.items()}
        for n in range(count)
    ]
