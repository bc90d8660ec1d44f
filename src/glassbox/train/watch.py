"""Watching over processes that depend on each other: one that hangs, and one that is slower than the rest."""

import faulthandler
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median_low

import torch.distributed as dist

from glassbox.ledger.workspace import Workspace
from glassbox.train.parallel.ranks import Ranks

STACKS = "stacks-rank-{rank}.txt"
"""Where a process that hangs writes what each of its threads is doing."""
WORTH, MOMENT = 0.05, 0.1
"""A process is not called slow for less than this share of the time, nor for so few seconds since the last report: the
system itself gives a process the processor later by some hundredths."""


@contextmanager
def watchdog(path: Path, seconds: float) -> Iterator[Callable[[], None]]:
    """Gives a function to call whenever something is done. When it has not been called for so many seconds, the stacks
    of all threads are written to `path` and the process ends with exit code 1; 0 seconds: never.

    A thread of the interpreter's own watches, which needs no lock: it works while Python waits inside a collective. The
    others of a run that was started by torchrun are ended too, and all are started again.
    """
    if not seconds:
        yield lambda: None
        return
    with path.open("a", encoding="utf-8") as file:
        rearm = partial(faulthandler.dump_traceback_later, seconds, exit=True, file=file)
        rearm()
        try:
            yield rearm
        finally:
            faulthandler.cancel_dump_traceback_later()
    if not path.stat().st_size:
        path.unlink()


def report_hangs(workspace: Workspace) -> None:
    """Put on record what the watchdogs of an earlier attempt wrote, and set it aside as `hang-N-rank-M.txt`; the first
    process does so for all."""
    written = sorted(path for path in workspace.folder.glob(STACKS.format(rank="*")) if path.stat().st_size)
    if workspace.rank != 0 or not written:
        return
    number = 1 + len({path.name.split("-")[1] for path in workspace.folder.glob("hang-*-rank-*.txt")})
    for path in written:
        path.rename(path.with_name(path.name.replace("stacks", f"hang-{number}")))
    workspace.event("hang", stacks=f"hang-{number}-rank-*.txt", processes=len(written))


class Pace:
    """How long each process works on a step before it first has to wait for the others."""

    def __init__(self, ranks: Ranks, factor: float):
        self.ranks, self.factor = ranks, factor
        self.own = self.whole = 0.0
        self._known: set[int] = set()
        self._warm = False

    def count(self, own: float, whole: float) -> None:
        """Add a step: seconds until its first wait, and seconds in all. The first one, which opens files, does not
        count."""
        if self._warm:
            self.own += own
            self.whole += whole
        self._warm = True

    def report(self, workspace: Workspace, step: int) -> None:
        """Compare the steps since the last report over all processes, which call this together; record who has become
        slow."""
        if self.ranks.world > 1:
            each = self.ranks.total([self.own * (rank == self.ranks.rank) for rank in range(self.ranks.world)])
            (whole,) = self.ranks.most([self.whole])
            slow = slow_ranks(each, whole, self.factor)
            if set(slow) - self._known:
                hosts = [""] * self.ranks.world
                dist.all_gather_object(hosts, socket.gethostname())
                for rank in sorted(set(slow) - self._known):
                    facts = {"seconds": round(each[rank], 4), "median": round(median_low(each), 4)}
                    workspace.event("slow process", step=step, rank=rank, host=hosts[rank], **facts)
            self._known = set(slow)
        self.own = self.whole = 0.0


def slow_ranks(each: Sequence[float], whole: float, factor: float) -> list[int]:
    """Which processes took `factor` times the median of `each` one's own seconds (of two, the quicker one's), and more
    than a moment and a small share of the `whole` beyond it."""
    middle, least = median_low(each), max(MOMENT, WORTH * whole)
    return [rank for rank, own in enumerate(each) if own > factor * middle and own - middle > least]
