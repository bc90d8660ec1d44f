"""A run that is killed again and again ends with the same weights, bit for bit, as one that is left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import write_tiny

TRAINED = ("base", "sft", "rl")


def glassbox(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "glassbox.cli", *arguments, "--runs", str(folder)]


def finish(folder: Path, recipe: Path) -> str:
    command = glassbox(folder, "run", str(recipe))
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "tiny" / name / "model" / "model.safetensors").read_bytes() for name in TRAINED}


def kill_in(folder: Path, recipe: Path, stage: str, rng: random.Random) -> bool:
    """Start the run and kill it with SIGKILL at a random moment of a stage; False if it was over first."""
    process = subprocess.Popen(
        glassbox(folder, "run", str(recipe)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    begun = folder / "tiny" / stage / "attempt.json"
    while process.poll() is None and not begun.exists():
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.6))
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    recipe = write_tiny(tmp_path)
    finish(tmp_path / "calm", recipe)
    rng = random.Random(time.time_ns())  # other moments each time: the promise is for any of them
    killed = [kill_in(tmp_path / "killed", recipe, stage, rng) for stage in ("documents", "base", "base", "sft", "rl")]
    assert killed.count(True) >= 4
    finish(tmp_path / "killed", recipe)
    assert weights(tmp_path / "killed") == weights(tmp_path / "calm")
    assert not list((tmp_path / "killed").rglob(".tmp-*"))

    assert "nothing to do" in finish(tmp_path / "killed", recipe)
    verified = subprocess.run(
        glassbox(tmp_path / "killed", "verify", "tiny"), capture_output=True, text=True, check=False, timeout=60
    )
    assert verified.returncode == 0, verified.stdout
