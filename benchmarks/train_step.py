"""Speed and memory of a training step against transformers' own class, for a small network of each family.

    python benchmarks/train_step.py [--families mistral,olmoe] [--precisions fp32,bf16] [--device cuda] [--json]

Forward, backward, clipping and AdamW on the same weights, tokens and micro-batches. Both sides take turns in this
process, and the best of several rounds counts, in CPU seconds (on a GPU in seconds). Transformers runs with its best
settings: sdpa attention, its grouped experts, fused AdamW, autocast; `--compile` puts the blocks of both sides through
torch.compile. Peak memory is of a process that runs one side alone, over what it held before the model was built; on
the CPU at a vocabulary of 32,768.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from glassbox.model.families import Sizes, to_config
from glassbox.model.names import AsTheirs, hub_names, parts
from glassbox.model.tensors import InMemory, write_tensors
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.size import train_flops
from glassbox.train.compile import compile_blocks
from glassbox.train.losses import next_token
from glassbox.train.optimizer import build_optimizer
from glassbox.train.parallel.place import Placed
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from glassbox.train.throughput import peak_flops

ROWS, CONTEXT = 8, 256
VOCABULARY, LARGE_VOCABULARY = 4096, 32768

NETWORKS = {
    "mistral": Network(dim=256, layers=4, hidden=896, attention=Attention(heads=8, kv_heads=2, window=128)),
    "qwen2": Network(dim=256, layers=4, hidden=688, attention=Attention(heads=8, kv_heads=2, bias=True)),
    "mixtral": Network(
        dim=256,
        layers=4,
        attention=Attention(heads=8, kv_heads=2),
        experts=Experts(count=8, top_k=2, hidden=512, normalise=True, z_loss=0),
    ),
    "olmoe": Network(
        dim=128,
        layers=4,
        attention=Attention(heads=4, kv_heads=4, qk_norm="whole"),
        experts=Experts(count=64, top_k=8, hidden=64, z_loss=0),
    ),
    "dots": Network(
        dim=128,
        layers=6,
        hidden=344,
        attention=Attention(heads=4, kv_heads=4, qk_norm="head"),
        experts=Experts(
            count=32,
            top_k=6,
            hidden=48,
            shared=2,
            first_dense=1,
            score="sigmoid",
            normalise=True,
            scale=2.5,
            score_bias=True,
            balance_loss=0,
            z_loss=0,
        ),
    ),
}
"""Shrunk; the widths of experts are such that the peer's grouped product takes them in bf16."""

Step = Callable[[torch.Tensor], None]


def ours(family: str, vocabulary: int, dtype: torch.dtype, device: str, compiled: bool) -> Step:
    model = network(family, vocabulary).to(device)
    model.compute_dtype = dtype
    if compiled:
        compile_blocks(model)
    adamw = build_optimizer(Placed([model]), Optimizer(lr=1e-3))

    def step(ids: torch.Tensor) -> None:
        rows = to_rows({"ids": ids, "labels": ids})
        accumulate(model, rows, next_token, labelled_tokens(rows), len(ids))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def network(family: str, vocabulary: int) -> Transformer:
    model = Transformer(NETWORKS[family], vocabulary)
    model.init_weights(0)
    return model


def theirs(family: str, vocabulary: int, dtype: torch.dtype, device: str, compiled: bool) -> Step:
    model = peer(family, vocabulary).to(device)
    if compiled:
        for block in model.model.layers:
            block.compile()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(ids: torch.Tensor) -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def peer(family: str, vocabulary: int) -> transformers.PreTrainedModel:
    """Transformers' class with the same weights."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = network(family, vocabulary)
    config = to_config(Sizes(model.network, vocabulary, CONTEXT))
    own = InMemory(dict(model.state_dict()))
    pieces = parts(model.network, own.entries, hub_names(config["model_type"]))
    grouped = {"experts_implementation": "grouped_mm"} if model.network.experts else {}
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder), AsTheirs(own, pieces))
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        made = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **grouped)
    made.config.use_cache = False
    if model.network.experts and model.network.experts.balance_loss:
        made.config.output_router_logits = True
    return made.train()


SIDES = {"glassbox": ours, "transformers": theirs}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def speeds(
    family: str, precision: str, device: str, compiled: bool, rounds: int, ids: torch.Tensor
) -> dict[str, float]:
    """Tokens per (CPU) second of each side, the best of `rounds`."""
    steps = {name: build(family, VOCABULARY, PRECISIONS[precision], device, compiled) for name, build in SIDES.items()}
    best = dict.fromkeys(steps, float("inf"))
    for round_number in range(rounds + 2):
        for name, step in steps.items():
            start = seconds(device)
            step(ids)
            if round_number > 1:  # the first ones warm up
                best[name] = min(best[name], seconds(device) - start)
    return {name: ids.numel() / value for name, value in best.items()}


def peak_memory(side: str, family: str, precision: str, device: str, compiled: bool, ids: torch.Tensor) -> float:
    """Bytes at the peak of three steps over what was held before the model was built, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (side, family, precision, device, compiled, ids))


def _peak(side: str, family: str, precision: str, device: str, compiled: bool, ids: torch.Tensor) -> float:
    torch.set_num_threads(1)
    before = _resident("VmRSS")
    step = SIDES[side](family, LARGE_VOCABULARY, PRECISIONS[precision], device, compiled)
    for _ in range(3):
        step(ids)
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM") - before


def _resident(what: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(what))
    return 1024.0 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(NETWORKS), help="comma-separated")
    parser.add_argument("--precisions", default="fp32,bf16", help="comma-separated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="both sides' blocks through torch.compile")
    parser.add_argument("--rounds", type=int, default=4, help="timed rounds of each side")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--no-memory", action="store_true", help="speed alone")
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (arguments.rows, CONTEXT), generator=generator).to(arguments.device)
    for family in arguments.families.split(","):
        for precision in arguments.precisions.split(","):
            chosen = (precision, arguments.device, arguments.compile)
            rates = speeds(family, *chosen, arguments.rounds, ids)
            row: dict[str, Any] = {"family": family, "precision": precision}
            row |= {f"{name}_tokens_per_second": round(rate) for name, rate in rates.items()}
            row["speed_ratio"] = round(rates["glassbox"] / rates["transformers"], 2)
            flops = train_flops(NETWORKS[family], VOCABULARY, CONTEXT) * rates["glassbox"]
            row["utilisation"] = round(flops / peak_flops(torch.device(arguments.device), PRECISIONS[precision]), 3)
            if not arguments.no_memory:
                peaks = {name: peak_memory(name, family, *chosen, ids) for name in SIDES}
                row |= {f"{name}_peak_mb": round(value / 1e6) for name, value in peaks.items()}
                row["memory_ratio"] = round(peaks["glassbox"] / peaks["transformers"], 2)
            print(json.dumps(row) if arguments.json else "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
