"""A command in several processes of this host: exit codes, restarts, signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from glassbox.processes import host, taking_part


def code(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, sys, time, signal, pathlib\nrank = os.environ['RANK']\n{text}"]


def test_all_processes_are_told_where_they_stand(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RESTART_COUNT", host.LISTENER)
    text = f"pathlib.Path({str(tmp_path)!r}, rank).write_text(' '.join(os.environ.get(n, '-') for n in {names}))"
    assert host.start(code(text), 3, 0, print) == 0
    assert [(tmp_path / str(rank)).read_text().split()[:5] for rank in range(3)] == [
        [str(rank), str(rank), "3", "127.0.0.1", "0"] for rank in range(3)
    ]
    assert [(tmp_path / str(rank)).read_text().split()[5] == "-" for rank in range(3)] == [False, True, True]


@pytest.mark.parametrize(("given", "wanted"), [(host.FAILED, 1), (2, 2), (3, 3), (130, 130)])
def test_an_exit_code_that_stands_is_passed_on(given: int, wanted: int) -> None:
    said: list[str] = []
    assert host.start(code(f"sys.exit({given} if rank == '1' else 70)"), 2, 3, said.append) == wanted
    assert said == []


def test_a_lost_process_is_started_again_with_the_others(tmp_path: Path) -> None:
    text = f"""
log = pathlib.Path({str(tmp_path)!r}, rank)
log.write_text((log.read_text() if log.exists() else '') + os.environ['TORCHELASTIC_RESTART_COUNT'])
if rank == '1' and len(log.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(0 if len(log.read_text()) == 3 else 70)
"""
    said: list[str] = []
    assert host.start(code(text), 2, 5, said.append) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["012", "012"]
    assert said == [
        f"process 1 of 2 was killed by signal 9; starting again from the last checkpoint ({turn} of 5)"
        for turn in (1, 2)
    ]


@pytest.mark.parametrize("given", [1, 70])
def test_restarts_come_to_an_end(given: int) -> None:
    said: list[str] = []
    assert host.start(code(f"sys.exit({given})"), 2, 1, said.append) == 1
    assert said == ["starting again from the last checkpoint (1 of 1)"]


def test_those_that_outlive_a_lost_one_are_asked_then_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PATIENCE", 0.3)
    text = """
signal.signal(signal.SIGTERM, lambda number, frame: None)
if rank == '1':
    os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(60)
"""
    began = time.monotonic()
    said: list[str] = []
    assert host.start(code(text), 2, 0, said.append) == 1
    assert time.monotonic() - began < 30
    assert said == ["process 1 of 2 was killed by signal 11; finished work and checkpoints are kept"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on_once(tmp_path: Path, number: int) -> None:
    text = f"""
got = []
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(one, lambda number, frame: got.append(number))
pathlib.Path({str(tmp_path)!r}, rank).touch()
while not got:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(130 if got == [{int(number)}] else 1)
"""

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert host.start(code(text), 2, 3, print) == 130


def test_one_process_on_its_own_loads_no_pytorch() -> None:
    with taking_part() as crew:
        assert crew is None
    text = "import sys, glassbox.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
