"""What the command line shows: progress while it works (a bar on a terminal, a plain line now and then in a log), and
results as tables or JSON.
"""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from glassbox.report.format import duration

WIDE = 10_000
"""Columns where there is no terminal: a line of a log is never broken."""


def _console(stream: TextIO, stderr: bool) -> Console:
    """Plain text: brackets in paths and sentences are no markup."""
    width = None if stream.isatty() else WIDE
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True, width=width)


out = _console(sys.stdout, stderr=False)
err = _console(sys.stderr, stderr=True)

PLAIN_EVERY = 20.0
"""Seconds between progress lines when the output is not a terminal."""

MARKS = {"unchanged": "=", "started": ">", "resumed": ">", "finished": "+"}


class StageWatcher:
    """Shows stages and their progress (a `glassbox.ledger.runner.Watcher`)."""

    def __init__(self, console: Console, progress: Progress | None):
        self.console, self.bar = console, progress
        self.task: TaskID | None = None
        self.name = ""
        self.last_line = 0.0
        self.first: tuple[float, float] | None = None
        """When progress was first told of the stage, and how far it was: a resumed stage does not begin at 0."""

    def stage(self, name: str, state: str, seconds: float = 0.0) -> None:
        if self.bar and self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        if state in ("started", "resumed"):
            self.name, self.first, self.last_line = name, None, time.monotonic()
            if self.bar:
                self.task = self.bar.add_task(name, total=None, note="")
        took = f"  {duration(seconds)}" if seconds else ""
        if not self.bar or state not in ("started", "resumed"):
            self.console.print(f"{MARKS[state]} {name:<12} {state}{took}")

    def progress(self, done: float, total: float, note: str) -> None:
        if self.first is None or done < self.first[1]:
            self.first = time.monotonic(), done
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif time.monotonic() - self.last_line >= PLAIN_EVERY:
            self.last_line = time.monotonic()
            since, start = self.first
            pace = (time.monotonic() - since) / (done - start) if done > start else 0.0
            left = f"  {duration((total - done) * pace)} left" if pace else ""
            self.console.print(f"  {self.name:<12} {done:,.0f}/{total:,.0f}  {note}{left}")


@contextmanager
def watching(console: Console) -> Iterator[StageWatcher]:
    """A watcher for the length of a run, which writes to `console`."""
    if not console.is_terminal:
        yield StageWatcher(console, None)
        return
    columns = (
        TextColumn("> {task.description:<12}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield StageWatcher(console, progress)


TWICE = 1.0
"""Seconds between two signals that are two requests: a scheduler and what it started may both pass on the same one."""


@contextmanager
def stop_on_signal(deadline: float = math.inf, speaks: bool = True) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM or SIGUSR1 (a scheduler's warning) once asks for a clean stop after the next checkpoint, and so
    does the clock at `deadline` (seconds since 1970); Ctrl-C or SIGTERM after that stops at once."""
    asked = math.inf

    def request(why: str) -> None:
        nonlocal asked
        if asked == math.inf:
            asked = time.time()
            if speaks:
                err.print(f"{why}stopping after a checkpoint (again to stop at once; finished work is kept either way)")

    def ask(number: int, frame: FrameType | None) -> None:
        if time.time() - asked > TWICE and number != signal.SIGUSR1:
            raise KeyboardInterrupt
        request("")

    def stop_requested() -> bool:
        if time.time() > deadline:
            request("the time limit is near (machine.hours): ")
        return asked < math.inf

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop_requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_rows(columns: tuple[str, ...], rows: list[Any], as_json: bool) -> None:
    """A table on standard output, or its rows as JSON objects."""
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    out.print(table)


def print_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
