"""The whole engine, from token shards to checkpoints, takes the same steps as Hugging Face's Trainer does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_engine.py"


@pytest.mark.matrix
def test_a_run_has_the_trainers_losses():
    arguments = ["--families", "mistral", "--precisions", "fp32", "--steps", "10", "--checkpoint-every", "5", "--json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    assert row["losses"][0] == pytest.approx(row["losses"][1], abs=2e-4)
    assert 0 <= row["other"] < 0.5
    assert row["stall_ms"] > 0
    assert row["ratio"] > 0
