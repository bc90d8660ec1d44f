"""Training on one large GPU: speed, utilisation and memory, with transformers on the same card beside each row.

    python benchmarks/gpu.py [--only dense-1b,moxin,olmoe,dots] [--no-compile] [--json]
    python benchmarks/gpu.py --smoke          the same path on small networks, on a CPU too

    dense-1b   MPT-1B's shape (with a gate, as many parameters) at 2,048      floor 45,500 tokens a second, goal 50,000
    moxin      8 layers of Moxin-7B's shape at 8,192                          goal 45 % of the peak
    olmoe      the whole of OLMoE-1B-7B at 4,096                              floor 23,200 tokens a second, goal 30,000
    dots       2 layers of dots.llm1's shape, one with experts, at 4,096
    layer      the layer of experts of dots alone, against a dense one of the same FLOPs: its share of the dense one's
               utilisation; beat 0.76 (arXiv:2506.05767)

Steps are whole: micro-batches of random ids, causal rows of one document, loss, clipping, fused AdamW with fp32 weights
and moments. bf16, and float8 for ours; blocks of both sides through torch.compile. Some steps warm up, CUDA events time
the rest, and the peak of memory is theirs. What does not fit says so. Utilisation is the closed-form FLOPs of
`recipe/size.py`, nothing recomputed counted, over the data sheet's bf16 peak.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from glassbox.model.experts import MixtureOfExperts
from glassbox.model.families import Sizes, to_config
from glassbox.model.feed_forward import FeedForward
from glassbox.model.transformer import Transformer, init_weight
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.loop import Loop, Parallel
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.size import train_flops
from glassbox.recipe.training import PretrainStage
from glassbox.train.compile import compile_blocks
from glassbox.train.float8 import refusal
from glassbox.train.losses import next_token
from glassbox.train.optimizer import build_optimizer
from glassbox.train.parallel.place import clip_gradients, fill, place
from glassbox.train.precision import set_precision
from glassbox.train.recompute import recompute_blocks
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from glassbox.train.throughput import peak_flops

RECIPES = Path(__file__).parents[1] / "recipes"
OPTIMIZER = Optimizer(lr=1e-4)
WARM, TIMED = 3, 10
"""Steps that warm up, and steps that are timed."""
Step = Callable[[], Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network and how it is trained on one card."""

    name: str
    network: Network
    vocabulary: int
    context: int
    rows: int
    """Sequences of a micro-batch."""
    micro_batches: int
    """Of a step."""
    recompute: str
    floor: float = 0.0
    """Tokens a second that others state for one such card."""
    goal: float = 0.0
    """Tokens a second; below 1 a share of the peak."""

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.micro_batches * self.rows * self.context


def cases() -> list[Case]:
    dense = Network(dim=2048, layers=24, hidden=5504, attention=Attention(heads=16, kv_heads=16), tie_embeddings=True)
    moxin, olmoe, dots = (_of_recipe(name) for name in ("moxin", "olmoe", "dots"))
    return [
        Case("dense-1b", dense, 50_368, 2048, 8, 8, "none", 45_500, 50_000),
        Case("moxin", moxin.model_copy(update={"layers": 8}), 32_000, 8192, 2, 4, "none", goal=0.45),
        Case("olmoe", olmoe, 50_304, 4096, 2, 8, "full", 23_200, 30_000),
        Case("dots", dots.model_copy(update={"layers": 2}), 152_064, 4096, 4, 4, "none"),
    ]


def _of_recipe(name: str) -> Network:
    stage = load_recipe(RECIPES / name / "full.yaml").stages["base"]
    assert isinstance(stage, PretrainStage)
    return stage.model


def small(case: Case) -> Case:
    """The same path in a second on a CPU."""
    network, heads = case.network, case.network.attention
    attention = heads.model_copy(update={"heads": 4, "kv_heads": 4 * heads.kv_heads // heads.heads, "head_dim": 16})
    update: Row = {"dim": 64, "layers": 2, "hidden": 96, "attention": attention}
    if network.experts:
        update["experts"] = network.experts.model_copy(update={"count": 8, "top_k": 2, "hidden": 32})
    return replace(
        case,
        network=network.model_copy(update=update),
        vocabulary=256,
        context=32,
        rows=2,
        micro_batches=2,
        floor=0.0,
        goal=0.0,
    )


def ours(case: Case, precision: str, device: str, compiled: bool) -> Step:
    """A step of `fit`, on a model placed as it is there."""
    loop = Loop(precision=precision, micro_rows=case.rows, recompute=case.recompute, compile=compiled)
    with torch.device("meta"):
        model = Transformer(case.network, case.vocabulary)
    shapes = {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    set_precision(model, loop, device)
    placed = place(model, Parallel(), device)
    recompute_blocks(placed.model, loop.recompute)
    if compiled:
        compile_blocks(placed.model)
    fill(placed, lambda name: init_weight(name, torch.empty(shapes[name], device=device), case.network, 0))
    optimizer = build_optimizer(placed, OPTIMIZER)
    rows = to_rows({"ids": ids_of(case), "labels": ids_of(case)})

    def step() -> None:
        accumulate(placed, rows, next_token, labelled_tokens(rows), case.rows)
        clip_gradients(placed, OPTIMIZER.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def theirs(case: Case, precision: str, device: str, compiled: bool) -> Step:
    """The same step of transformers' class."""
    model = peer(case, device)
    if case.recompute == "full":
        model.gradient_checkpointing_enable()
    if compiled:
        for block in model.model.layers:
            block.compile()
    adamw = torch.optim.AdamW(model.parameters(), lr=OPTIMIZER.lr, betas=OPTIMIZER.betas, fused=True)
    ids = ids_of(case).to(device)

    def step() -> None:
        for micro in ids.split(case.rows):
            with torch.autocast(device, torch.bfloat16):
                loss = model(input_ids=micro, labels=micro).loss
            (loss / case.micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return step


def peer(case: Case, device: str) -> transformers.PreTrainedModel:
    """Transformers' class for the network, with its best attention and experts."""
    transformers.utils.logging.set_verbosity_error()
    values = to_config(Sizes(case.network, case.vocabulary, case.context))
    config = transformers.AutoConfig.for_model(**values)
    grouped = {"experts_implementation": "grouped_mm"} if case.network.experts else {}
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa", **grouped
        )
    model.config.use_cache = False
    model.config.output_router_logits = bool(case.network.experts and case.network.experts.balance_loss)
    return model.train()


def ids_of(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, case.vocabulary, (case.micro_batches * case.rows, case.context), generator=generator)


def measured(build: Callable[[], Step], device: str, steps: int) -> tuple[float, float]:
    """(seconds a step, peak memory in bytes; not known on a CPU)."""
    step = build()
    for _ in range(min(WARM, steps)):
        step()
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps, float("nan")
    torch.cuda.reset_peak_memory_stats()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(steps):
        step()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000 / steps, float(torch.cuda.max_memory_allocated())


def training(case: Case, device: str, compiled: bool, steps: int) -> Iterator[Row]:
    """Rows of one network: ours in bf16 and float8, and the peer."""
    sides = (("glassbox", ours, "bf16"), ("glassbox", ours, "float8"), ("transformers", theirs, "bf16"))
    peak = peak_flops(torch.device(device), torch.bfloat16)
    for name, side, precision in sides:
        row: Row = {"case": case.name, "side": name, "precision": precision}
        why = refusal(device) if precision == "float8" else None
        if why is not None:
            row["note"] = f"in bf16: {why}"
        try:
            seconds, memory = measured(partial(side, case, precision, device, compiled), device, steps)
        except torch.OutOfMemoryError:
            yield row | {"note": "out of memory"}
            continue
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        rate = case.tokens / seconds
        flops = train_flops(case.network, case.vocabulary, case.context) * rate
        row |= {"tokens_per_second": round(rate), "utilisation": round(flops / peak, 4)}
        row |= {"peak_gb": round(memory / 1e9, 1)} if device == "cuda" else {}
        yield row | ({"floor": case.floor} if case.floor else {}) | ({"goal": case.goal} if case.goal else {})


def layers(case: Case, device: str, compiled: bool, steps: int) -> Iterator[Row]:
    """The layer of experts of each side against the dense one of as many FLOPs, forward and backward."""
    experts, dim = case.network.experts, case.network.dim
    assert experts is not None
    width = (experts.top_k + experts.shared) * experts.hidden
    tokens = case.rows * case.context
    flops, peak = 18 * tokens * dim * width, peak_flops(torch.device(device), torch.bfloat16)
    theirs_alone = replace(case, vocabulary=256)

    def of_peer() -> nn.Module:
        return peer(theirs_alone, device).model.layers[-1].mlp

    built: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: FeedForward(dim, width),
        "glassbox": lambda: MixtureOfExperts(case.network),
        "transformers": of_peer,
    }
    rates: dict[str, float] = {}
    for name, build in built.items():
        autocast = name == "transformers"  # ours computes in the type of its input
        seconds, _ = measured(partial(_layer_step, build, dim, tokens, device, compiled, autocast), device, steps)
        gc.collect()
        rates[name] = flops / seconds
        row = {"case": "layer", "side": name, "precision": "bf16", "utilisation": round(rates[name] / peak, 4)}
        yield row | ({} if name == "dense" else {"of_dense": round(rates[name] / rates["dense"], 3), "goal": 0.76})


def _layer_step(
    build: Callable[[], nn.Module], dim: int, tokens: int, device: str, compiled: bool, autocast: bool
) -> Step:
    layer = build().to(device)
    for name, weight in layer.named_parameters():
        nn.init.normal_(weight, std=0.02, generator=torch.Generator(device).manual_seed(len(name)))
    for name, buffer in layer.named_buffers():
        if "bias" in name:
            buffer.zero_()
    if compiled:
        layer.compile()
    x_BSD = torch.randn(1, tokens, dim, device=device).bfloat16().requires_grad_()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            out = layer(x_BSD)
        y_BSD = out[0] if isinstance(out, tuple) else out
        y_BSD.backward(torch.ones_like(y_BSD))
        layer.zero_grad(set_to_none=True)

    return step


def rows(options: argparse.Namespace) -> Iterator[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compiled, steps = not (options.no_compile or options.smoke), 1 if options.smoke else TIMED
    chip = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    about: Row = {"date": date.today().isoformat(), "chip": chip, "torch": torch.__version__, "compiled": compiled}
    about |= {"smoke": True} if options.smoke else {}
    for case in cases():
        if case.name in options.only.split(","):
            chosen = small(case) if options.smoke else case
            for row in training(chosen, device, compiled, steps):
                yield about | row
            if case.name == "dots":
                for row in layers(chosen, device, compiled, steps):
                    yield about | row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="dense-1b,moxin,olmoe,dots", help="comma-separated")
    parser.add_argument("--no-compile", action="store_true", help="both sides without torch.compile")
    parser.add_argument("--smoke", action="store_true", help="one step of small networks, on a CPU if there is no GPU")
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.smoke:
        parser.error("no GPU here; --smoke runs the same path on small networks")
    for row in rows(options):
        print(
            json.dumps(row) if options.json else "  ".join(f"{key} {value}" for key, value in row.items()), flush=True
        )


if __name__ == "__main__":
    main()
