"""Start a command as several processes on this host, pass signals on to them, and start them again when one is lost.

Each gets the environment that torchrun would give it (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and
TORCHELASTIC_RESTART_COUNT) and a session of its own, so that Ctrl-C reaches it once, from here.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from glassbox.errors import Lost

LAUNCHER = "GLASSBOX_LAUNCHER"
"""Environment: id of the process that started this one; without it nobody would pass signals on."""
SINCE = "GLASSBOX_SINCE"
"""Environment: when the run was started, before any restart; seconds since 1970."""
LISTENER = "GLASSBOX_LISTENER"
"""Environment of process 0: file descriptor of the socket on which it serves the store that all meet at."""

FAILED = 65
"""Exit code of a process that failed at work and said so: with 1 one ends, too, whose watchdog found that it hangs."""
DECIDED = {0: 0, FAILED: 1, 2: 2, 3: 3, 130: 130}
"""Exit code of a process that knew what it did -> that of the run; after any other a new start may help."""
PATIENCE = 60.0
"""Seconds that the others have to end by themselves once one has failed; then they are asked, then killed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class _Family:
    """The processes that run now."""

    members: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopping: bool = False

    def send(self, number: int) -> None:
        for member in self.members:
            if member.poll() is None:
                member.send_signal(number)

    def kill(self) -> None:
        """End whatever is left, with what it has started itself."""
        for member in self.members:
            with suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGKILL)
            member.wait()


def start(command: Sequence[str], count: int, restarts: int, say: Callable[[str], None]) -> int:
    """Run `command` as `count` processes until it is over; returns its exit code.

    When one is lost (killed by a signal, or ended with `Lost`), all are started again, up to `restarts` times.
    """
    since = time.time()
    with _passing_signals_on() as family:
        for attempt in range(restarts + 1):
            codes = _attempt(command, count, {SINCE: str(since), "TORCHELASTIC_RESTART_COUNT": str(attempt)}, family)
            decided = [DECIDED[code] for code in codes.values() if code in DECIDED]
            if any(decided) or len(decided) == count:
                return next((code for code in decided if code), 0)
            if family.stopping:
                return 130
            killed = [
                f"process {rank} of {count} was killed by signal {-code}" for rank, code in codes.items() if code < 0
            ]
            if attempt < restarts:
                say("; ".join([*killed, f"starting again from the last checkpoint ({attempt + 1} of {restarts})"]))
            elif killed:
                say("; ".join([*killed, "finished work and checkpoints are kept"]))
    return 1


def _attempt(command: Sequence[str], count: int, environment: dict[str, str], family: _Family) -> dict[int, int]:
    """Start the processes and wait for their end; the exit codes of those that ended without being told to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(count)
        port = listener.getsockname()[1]
        common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common |= {LAUNCHER: os.getpid()}
        for rank in range(count):
            own = {"RANK": rank, "LOCAL_RANK": rank} | ({LISTENER: listener.fileno()} if rank == 0 else {})
            family.members.append(
                subprocess.Popen(
                    command,
                    env=os.environ | environment | {name: str(value) for name, value in (common | own).items()},
                    pass_fds=[listener.fileno()] if rank == 0 else [],
                    start_new_session=True,
                )
            )
    try:
        return _wait(family)
    finally:
        family.kill()
        family.members.clear()


def _wait(family: _Family) -> dict[int, int]:
    """Wait for the end of all, or until those that outlive a failed one have been asked to end and have not."""
    codes: dict[int, int] = {}
    failed_at, asked = 0.0, False
    while len(codes) < len(family.members):
        for rank, member in enumerate(family.members):
            if rank not in codes and member.poll() is not None:
                codes[rank] = Lost.exit_code if asked and member.returncode < 0 else member.returncode
                failed_at = failed_at or (time.monotonic() if member.returncode else 0.0)
        if failed_at and time.monotonic() - failed_at > PATIENCE:
            if asked:
                break
            family.send(signal.SIGTERM)
            failed_at, asked = time.monotonic(), True
        time.sleep(0.05)
    return codes | {rank: Lost.exit_code for rank in range(len(family.members)) if rank not in codes}


@contextmanager
def _passing_signals_on() -> Iterator[_Family]:
    """Whatever asks this process to stop asks the processes it started; they stop after a checkpoint."""
    family = _Family()

    def ask(number: int, frame: FrameType | None) -> None:
        family.stopping = True
        family.send(number)

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield family
    finally:
        family.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
