"""Run a function on several processes from an ordinary test, joined by gloo."""

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = timedelta(seconds=120)


def _entry(rank: int, function: Callable[..., Any], world: int, store: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def run_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> None:
    """Call `function(*arguments)` on `world` processes; raises what the first of them to fail raises."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        mp.start_processes(_entry, (function, world, store, arguments), nprocs=world, start_method="spawn")
