"""Several processes carry a run out: who does what, and what happens when one fails, is lost, or is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from glassbox import cli
from glassbox.ledger.record import read_records
from glassbox.ledger.workspace import read_metrics
from tests.processes.toy import RECIPE

TOY = str(Path(__file__).with_name("toy.py"))
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    return tmp_path


def toy(task: dict[str, Any], count: int = 2, restarts: int = 0, *more: str) -> subprocess.Popen[str]:
    """The toy's recipe in `count` processes."""
    command = [sys.executable, TOY, "run", "toy.yaml", "--count", str(count), str(restarts), *more]
    return subprocess.Popen(
        command, env={**os.environ, "TOY": json.dumps(task)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def events(stage: str) -> list[str]:
    return [record["event"] for record in read_records(Path("runs/toy")) if record.get("stage") == stage]


def test_process_0_does_alone_what_is_not_training_and_reports(folder: Path) -> None:
    code, out, err = ended(toy({"do": "sum"}))
    assert (code, err) == (0, "")
    assert out.count("finished") == 4
    assert [row["total"] for row in read_metrics(folder / "runs/toy/base")] == [3.0] * 5
    assert events("base") == ["started", "finished"]


@pytest.mark.parametrize(("rank", "code"), [pytest.param(0, 2, marks=pytest.mark.matrix), (1, 1)])
def test_an_error_in_any_process_is_one_sentence_and_its_exit_code(folder: Path, rank: int, code: int) -> None:
    assert ended(toy({"do": "raise", "rank": rank, "code": code}, 2, 3))[::2] == (
        code,
        "glassbox: stage 'base': the toy is broken\n",
    )
    assert events("base") == ["started", "failed"]


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.matrix)])
def test_when_one_is_killed_all_start_again(folder: Path, rank: int) -> None:
    code, out, err = ended(toy({"do": "kill", "rank": rank}, 2, 1))
    assert code == 0
    assert err == f"process {rank} of 2 was killed by signal 9; starting again from the last checkpoint (1 of 1)\n"
    assert "> base         resumed" in out
    assert events("base")[-2:] == ["started", "finished"]


def test_a_signal_stops_all_of_them(folder: Path) -> None:
    process = toy({"do": "wait"})
    while not read_metrics(folder / "runs/toy/base"):
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    code, _, err = ended(process)
    assert code == 130
    assert err.count("stopping after a checkpoint") == 1
    assert err.count("stopped on request") == 1
    assert err.count("\n") == 2
    assert events("base") == ["started", "interrupted"]


def test_a_plan_that_does_not_fit_is_found_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["glassbox", "run", "toy.yaml", "--nproc", "2", "base.loop.parallel.replicate=4"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("glassbox: stage 'base': loop.parallel wants replicate 4")
    assert not (folder / "runs/toy/recipe.yaml").exists()
