"""The command line: exit codes, one clear sentence for every mistake, JSON where a result is printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glassbox import cli
from glassbox.cli.arguments import shipped
from glassbox.errors import RequestError
from tests.tiny import write_tiny


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["glassbox", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "absent.yaml"), "no such recipe file"),
        (("plan", "quickstart", "base.optimizer.lrr=1"), "did you mean 'lr'"),
        (("plan", "quickstart", "--device", "abacus"), "devices: h100"),
        (("run", "quickstart", "--only", "bse", "--dry-run"), "'bse' is no stage"),
        (("verify", "nothing"), "'nothing' is no run"),
        (("chat", "nothing"), "'nothing' is no run"),
        (("report", "nothing"), "'nothing' is no run"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("plan", "quickstart", "--utilisation", "3"), "utilisation"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_plan_schema_recipes_and_init(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, "plan", "quickstart", "--json")
    assert code == 0
    assert {row["stage"] for row in json.loads(out)["training"]} == {"base", "sft", "dpo", "rl"}
    code, out, _ = call(monkeypatch, capsys, "schema")
    assert (code, json.loads(out)["title"]) == (0, "glassbox recipe")
    code, out, _ = call(monkeypatch, capsys, "recipes", "--json")
    assert "quickstart" in {row["recipe"] for row in json.loads(out)}
    code, _, _ = call(monkeypatch, capsys, "init", "mine.yaml")
    assert code == 0
    assert (tmp_path / "mine.yaml").read_text() == (shipped() / "quickstart.yaml").read_text()
    code, _, err = call(monkeypatch, capsys, "init", "mine.yaml")
    assert (code, "exists already" in err) == (2, True)
    code, out, _ = call(monkeypatch, capsys, "run", "mine.yaml", "--dry-run", "--json")
    assert {row["would"] for row in json.loads(out)} == {"run"}


def test_the_server_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.models, "find_spec", lambda name: None)
    code, _, err = call(monkeypatch, capsys, "serve", "nothing")
    assert code == 2
    assert "pip install 'glassbox-llm[serve]'" in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(monkeypatch, capsys, "run", "absent.yaml", "--debug")
    assert code == 2
    assert "Traceback" in err


@pytest.mark.slow
def test_the_whole_way_by_command(tmp_path: Path) -> None:
    """Run, status, inspect, score, chat, verify, a flipped bit, a changed setting: each command on one small run."""
    recipe = write_tiny(tmp_path)
    environment = {**os.environ, "GLASSBOX_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}

    def glassbox(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "glassbox.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    glassbox("run", str(recipe))
    run = tmp_path / "runs" / "tiny"
    assert (run / "report.html").stat().st_size > 10_000
    assert {row["state"] for row in json.loads(glassbox("status", "tiny", "--json"))} == {"finished"}
    rows = json.loads(glassbox("inspect", "tiny", "--step", "3", "--json"))
    assert len(rows) == 4
    assert {row["source"] for row in rows} <= {"notes", "problems"}
    summary = (run / "base" / "summary.json").read_text()
    (run / "base" / "summary.json").write_text(summary.replace('"replaced": []', '"replaced": [[3, 4]]'))
    again = json.loads(glassbox("inspect", "tiny", "--step", "3", "--json"))
    assert again != rows  # as a run that went back would have read
    (run / "base" / "summary.json").write_text(summary)
    epochs = json.loads((run / "base" / "summary.json").read_text())["epochs"]
    for row in json.loads(glassbox("plan", str(recipe), "--json"))["reading"]:
        assert row["epochs"] == pytest.approx(epochs[row["source"]], rel=0.05)
    assert "max_epochs 0.1" in glassbox("plan", str(recipe), "base.max_epochs=0.1", code=2)
    (tmp_path / "texts.jsonl").write_text('{"text": "1 + 1 = 2"}\n{"text": "the file"}\n')
    scored = [json.loads(line) for line in glassbox("score", "tiny/base", str(tmp_path / "texts.jsonl")).splitlines()]
    assert len(scored) == 2
    assert all(value <= 0 for value in scored[0]["logprobs"][1:])
    assert glassbox("chat", "tiny", "-p", "What is 2 + 2?", "--max-new-tokens", "8").endswith("\n")
    assert "as sealed" in glassbox("verify", "tiny")
    scores = json.loads((run / "scores" / "scores.json").read_text())
    assert {row["model"] for row in scores["rows"]} == {"base", "sft", "rl"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in scores["rows"])

    weights = run / "sft" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(bytes(content))
    assert "sft/model/model.safetensors: content differs" in glassbox("verify", "tiny", code=3)
    content[-5] ^= 4
    weights.write_bytes(bytes(content))

    done = json.loads(glassbox("run", str(recipe), "sft.optimizer.lr=0.004", "--json"))["done"]
    assert done == ["sft", "rl", "scores"]
    assert len(list((run / ".attempts").iterdir())) == 3
    glassbox("prune", "tiny")
    assert not (run / ".attempts").exists()
    assert "nothing to do" in glassbox("run", str(recipe), "sft.optimizer.lr=0.004")


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.runs.pick_device("auto") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RequestError, match="more processes than GPUs on this host, which has 2"):
        cli.runs.pick_device("auto")
