"""A process that hangs says where and ends; a slow one is named."""

import subprocess
import sys

import pytest

from glassbox.ledger.workspace import Workspace
from glassbox.train.watch import report_hangs, slow_ranks, watchdog

HANGS = """
import sys, threading, time
from pathlib import Path
from glassbox.train.watch import watchdog

def waits_for_others():
    threading.Event().wait()

with watchdog(Path(sys.argv[1]), 0.6) as rearm:
    for _ in range(4):
        time.sleep(0.3)
        rearm()
    waits_for_others()
"""


def test_a_process_that_hangs_says_where_and_ends(tmp_path):
    path = tmp_path / "stacks-rank-3.txt"
    command = [sys.executable, "-c", HANGS, str(path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 1
    assert "waits_for_others" in path.read_text()

    seen: list[dict] = []
    workspace = Workspace(tmp_path, on_event=seen.append)
    for _ in range(2):
        report_hangs(workspace)
    assert seen == [{"what": "hang", "stacks": "hang-1-rank-*.txt", "processes": 1}]
    assert not path.exists()
    path.write_text("again")
    report_hangs(workspace)
    assert {file.name for file in tmp_path.iterdir()} == {"hang-1-rank-3.txt", "hang-2-rank-3.txt"}


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_nothing_is_left_of_a_run_that_did_not_hang(tmp_path, seconds):
    with watchdog(tmp_path / "stacks-rank-0.txt", seconds) as rearm:
        rearm()
    assert not list(tmp_path.iterdir())


def test_who_is_slow():
    assert slow_ranks([1.0, 1.1, 0.9, 2.5], 4.0, 2.0) == [3]
    assert slow_ranks([1.0, 1.1, 0.9, 1.9], 4.0, 2.0) == []
    assert slow_ranks([0.001, 0.001, 0.004], 4.0, 2.0) == []  # many times the median, and worth nothing
    assert slow_ranks([0.01, 0.01, 0.09], 0.5, 2.0) == []  # what any busy host does
    assert slow_ranks([1.0, 2.1], 4.0, 2.0) == [1]
    assert slow_ranks([1.0], 1.0, 2.0) == []
