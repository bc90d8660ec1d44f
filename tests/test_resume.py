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


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    recipe = write_tiny(tmp_path)
    started = time.monotonic()
    finish(tmp_path / "calm", recipe)
    whole = time.monotonic() - started

    rng, kills = random.Random(7), 0
    for attempt in range(6):
        process = subprocess.Popen(
            glassbox(tmp_path / "killed", "run", str(recipe)), stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(timeout=whole * rng.uniform(0.25, 0.55) + attempt)
        except subprocess.TimeoutExpired:
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    out = finish(tmp_path / "killed", recipe)
    assert kills >= 3
    assert weights(tmp_path / "killed") == weights(tmp_path / "calm")
    assert not list((tmp_path / "killed").rglob(".tmp-*"))

    started = time.monotonic()
    out = finish(tmp_path / "killed", recipe)
    assert "nothing to do" in out
    verified = subprocess.run(
        glassbox(tmp_path / "killed", "verify", "tiny"), capture_output=True, text=True, check=False, timeout=60
    )
    assert verified.returncode == 0, verified.stdout
