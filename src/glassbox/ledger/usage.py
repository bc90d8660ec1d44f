"""What a stretch of work used: wall time, CPU time, peak memory."""

import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Seconds on the clock, CPU seconds of the process and its finished children, the process's largest memory."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def start() -> tuple[float, float]:
    """A mark to count from; the process's peak memory starts anew where the system allows it (Linux)."""
    with suppress(OSError):  # elsewhere the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")
    return time.time(), _cpu_seconds()


def since(mark: tuple[float, float], earlier: Usage) -> Usage:
    """What was used since `mark`, on top of what an earlier part of the same work used."""
    return Usage(
        earlier.seconds + time.time() - mark[0],
        earlier.cpu_seconds + _cpu_seconds() - mark[1],
        max(earlier.peak_memory_bytes, _peak_memory()),
    )


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_memory() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
