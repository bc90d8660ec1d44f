"""A run of several processes of which one after another is killed, and the same run left alone."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.model.pieces import Pieces
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop, Parallel
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.train.checkpoint import newest
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.step import Beside
from tests.train.conftest import VOCABULARY, counting_rows

NETWORK = Network(
    dim=32,
    layers=2,
    attention=Attention(heads=4, kv_heads=2),
    experts=Experts(count=4, top_k=2, hidden=16, score_bias=True),
    init_std=0.1,
)


def work(rank: int, world: int, store: str, folder: Path, steps: int, plan: Parallel) -> None:
    """One process of the run, which goes on from the newest checkpoint."""
    torch.set_num_threads(1)
    patience = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=patience)
    model = Transformer(NETWORK, VOCABULARY)
    model.init_weights(3)
    fit(
        model,
        counting_rows,
        next_token,
        steps=steps,
        course=steady(Optimizer(lr=0.01), Schedule(shape="cosine"), steps, Beside(score_bias_rate=1e-3)),
        loop=Loop(parallel=plan, checkpoint_every=2, log_every=1),
        workspace=Workspace(folder, rank=rank),
    )
    dist.destroy_process_group()


def start(context: ForkServerContext, folder: Path, world: int, steps: int, plan: Parallel) -> list[BaseProcess]:
    folder.mkdir(parents=True, exist_ok=True)
    store = tempfile.mktemp(prefix="store-", dir=folder.parent)
    processes: list[BaseProcess] = [
        context.Process(target=work, args=(rank, world, store, folder, steps, plan), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def steps_done(folder: Path) -> int:
    rows = read_metrics(folder)
    return rows[-1]["step"] if rows else 0


def kill_one(processes: list[BaseProcess], folder: Path, draw: random.Random) -> bool:
    """Kill a process at a random moment: while it starts, or within a few steps, or while it writes a checkpoint; then
    the others, as a launcher does. False if the run was over first."""
    goal = steps_done(folder) + draw.choice([0, 1, 2, 3, 4, 6])
    while steps_done(folder) < goal and all(process.is_alive() for process in processes):
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.05))
    victim = draw.choice(processes)
    killed = victim.is_alive()
    for process in (victim, *processes):
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    return killed


def finish(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"


def killed_and_calm(folder: Path, kills: int, steps: int, world: int, plan: Parallel, *, seed: int) -> tuple[int, str]:
    """(Kills that hit, the first tensor that differs in the end or "")."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.parallel.killing"])  # so that a start takes no imports
    draw, hit = random.Random(seed), 0
    for _ in range(kills):
        hit += kill_one(start(context, folder / "killed", world, steps, plan), folder / "killed", draw)
    finish(start(context, folder / "killed", world, steps, plan))
    finish(start(context, folder / "calm", world, steps, plan))
    killed, calm = (Pieces(newest(folder / name / "checkpoints")) for name in ("killed", "calm"))
    assert killed.entries == calm.entries
    return hit, next((name for name in calm.entries if not torch.equal(calm.read(name), killed.read(name))), "")
