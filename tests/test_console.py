"""What asks a run to stop: signals and the clock."""

import os
import signal
import time

import pytest

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
