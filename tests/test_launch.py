"""The batch script for Slurm: what it asks for, and which plans do not fit. That it trains: tests/processes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glassbox import cli
from glassbox.cli.arguments import shipped


def launched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["glassbox", "launch", "small.yaml", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), *capsys.readouterr()


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(shipped() / "quickstart.yaml", tmp_path / "small.yaml")
    monkeypatch.chdir(tmp_path)


def test_the_script_asks_for_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--slurm", "--nodes", "8", "--per-node", "4", "--hours", "1.5", "--partition", "long", "--account", "me")
    code, script, err = launched(monkeypatch, capsys, *words, "machine.device=cuda", "machine.threads=2", "name=two w")
    assert (code, script) == (2, "")
    code, script, err = launched(monkeypatch, capsys, *words, "machine.device=cuda", "machine.threads=2")
    assert (code, err) == (0, "")
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert asked == {
        "job-name=quickstart",
        "nodes=8",
        "ntasks-per-node=1",
        "cpus-per-task=8",
        "gpus-per-node=4",
        "partition=long",
        "account=me",
        "time=1:30:00",
        "signal=B:USR1@300",
        "requeue",
        "open-mode=append",
        "output=quickstart-%j.log",
        f"chdir={tmp_path}",
    }
    assert "RDZV_TCP_STORE" not in script
    assert "--nnodes=8 --nproc-per-node=4 --max-restarts=3" in script
    assert "glassbox run small.yaml machine.device=cuda machine.threads=2 --runs runs &" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_with_a_range_of_hosts_the_job_outlives_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, script, _ = launched(monkeypatch, capsys, "--slurm", "--nodes", "6:8", "machine.device=cpu")
    assert code == 0
    assert {"#SBATCH --nodes=6-8", "#SBATCH --no-kill"} <= set(script.splitlines())
    assert "--nnodes=6:8 " in script
    assert "\nexport TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in script
    assert "gpus" not in script


def test_plans_that_do_not_fit_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--slurm", "--nodes", "2", "--per-node", "4", "--out", "job.sh", "base.loop.parallel.replicate=3")
    code, out, err = launched(monkeypatch, capsys, *words)
    assert (code, out) == (0, "")
    assert err.startswith("glassbox: stage 'base': loop.parallel wants replicate 3")
    assert err.count("\n") == 1
    assert (tmp_path / "job.sh").read_text().startswith("#!/bin/bash\n")


@pytest.mark.parametrize(("words", "sentence"), [((), "--slurm"), (("--slurm", "--nodes", "8:6"), "MIN:MAX")])
def test_a_wrong_request_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = launched(monkeypatch, capsys, *words)
    assert code == 2
    assert sentence in err
