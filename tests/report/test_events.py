"""What happened in a stage stands on its page, newest first, and only what belongs to it as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from glassbox.cli.runs import status
from glassbox.ledger.workspace import Inputs, Workspace
from tests.report import conftest
from tests.report.conftest import FUNCTIONS, build_run
from tests.report.reading import page_of

SPIKE = {"step": 12, "loss": 9.25, "grad_norm": 41.0, "done": "skip"}


def eventful(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    FUNCTIONS["pretrain"](config, inputs, workspace)
    workspace.event("spike", **SPIKE)
    workspace.event("slow process", step=40, rank=3, host="node<7>", seconds=1.5)


def test_events_of_a_stage(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", "base", {"pretrain": eventful})
    section = page_of(run).one("section", id="training")
    newest, spike = section.index("slow process"), section.index("12 spike skip loss 9.25, grad norm 41")
    assert newest < spike
    assert "rank 3, host node<7>, seconds 1.5" in section


def test_only_those_of_the_stage_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other settings begin anew, and the events before were another attempt's."""
    run = build_run(tmp_path / "run", "base", {"pretrain": eventful})
    monkeypatch.setattr(conftest, "RECIPE", conftest.RECIPE.replace("lr: 0.003", "lr: 0.004"))
    assert "Events" not in page_of(build_run(run, "base")).one("section", id="training")


def test_status_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_run(tmp_path / "run", "base", {"pretrain": eventful})
    status("run", tmp_path, as_json=True)
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["base"]["events"] == {"spike": 1, "slow process": 1}
    assert rows["tokens"]["events"] == {}
    status("run", tmp_path)
    assert "1 x spike" in capsys.readouterr().out
