"""The benchmark for one GPU goes its whole way on small networks, so that it runs where a GPU is at hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.matrix
def test_every_row_is_measured_on_small_networks():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--smoke", "--json"], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [(row["case"], row["side"], row["precision"]) for row in rows if "tokens_per_second" in row]
    sides = [("glassbox", "bf16"), ("glassbox", "float8"), ("transformers", "bf16")]
    assert steps == [(case, *side) for case in ("dense-1b", "moxin", "olmoe", "dots") for side in sides]
    layers = {row["side"]: row["utilisation"] for row in rows if row["case"] == "layer"}
    assert set(layers) == {"dense", "glassbox", "transformers"}
    assert all(math.isfinite(row["utilisation"]) for row in rows)
    assert all(row["smoke"] for row in rows)
