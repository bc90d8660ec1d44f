"""What asks a run to stop: signals and the clock; how long it will take."""

import io
import os
import signal
import time

import pytest
from rich.console import Console

from glassbox import console


def test_a_signal_asks_and_a_second_one_insists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "TWICE", 0.0)
    with console.stop_on_signal(speaks=False) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop()
        os.kill(os.getpid(), signal.SIGUSR1)  # a scheduler's warning never insists
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().err == ""


def test_the_same_request_from_two_senders_is_one() -> None:
    with console.stop_on_signal(speaks=False) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()


def test_the_clock_asks_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console.err, "print", said.append)
    now = time.time()
    with console.stop_on_signal(deadline=now + 60) as stop:
        assert not stop()
        monkeypatch.setattr(time, "time", lambda: now + 61)
        assert stop()
        assert stop()
    assert len(said) == 1
    assert said[0].startswith("the time limit is near")


def test_the_time_left_of_a_resumed_stage_is_that_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    written = io.StringIO()
    watcher = console.StageWatcher(Console(file=written, width=120), None)
    watcher.stage("base", "resumed")
    for done in range(900, 904):
        watcher.progress(done, 1000, "loss 2.0")
        clock[0] += 30
    lines = [line.split() for line in written.getvalue().splitlines() if "loss" in line]
    assert [" ".join(line[1:]) for line in lines] == [
        "901/1,000 loss 2.0 49 min 30 s left",
        "902/1,000 loss 2.0 49 min 00 s left",
        "903/1,000 loss 2.0 48 min 30 s left",
    ]
