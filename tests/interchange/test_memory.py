"""Converting needs the room of a piece, not of the checkpoint: `benchmarks/convert.py` on a small one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "convert.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """0.3 GB of 48 layers: what comes to an idle Python is a layer, its check in fp32, and what libraries load."""
    arguments = ["--layers", "48", "--dim", "256", "--shard-bytes", "50000000", "--folder", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["what"] for row in rows] == ["import", "export hf", "export gguf"]
    for row in rows:
        assert row["bytes"] > 320e6
        assert row["peak_bytes"] - row["idle_bytes"] < 150e6, row
        assert row["largest"] == 0
