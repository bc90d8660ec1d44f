"""A whole pretraining run, end to end, against Hugging Face's Trainer on the same model, data and batches.

    python benchmarks/train_engine.py [--families mistral,olmoe] [--precisions fp32,bf16] [--json]
    python benchmarks/train_engine.py --processes 2          what FSDP over processes of this host costs

Ours is the stage `pretrain` on token shards of this interpreter's library; the peer is transformers' own class with the
same first weights under its `Trainer`, with its best settings (sdpa attention, grouped experts, fused AdamW, bf16
autocast), which reads the very rows of our steps from a mapped file. Counted is everything between the end of a first
few steps and the end of the last: data, loss, optimizer, logging, checkpoints. Each run has a process of its own and
one thread for its products; rates are tokens per CPU second (of all threads) and per second. `losses` are the means
over the last steps, without router losses: that they agree shows that the work is the same.

`other` is the share of our time, checkpoints aside, that is neither forward and backward pass nor clipping and the
optimizer's step. `stall` is how long a checkpoint holds training up, beside what the Trainer's takes, and what share of
the time that is with one every 100 steps, the default.
"""

import argparse
import json
import multiprocessing
import os
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers
from train_step import CONTEXT, NETWORKS, ROWS, VOCABULARY, peer

from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.phases import Phase
from glassbox.recipe.training import PretrainStage
from glassbox.tokens.batches import PretrainData
from glassbox.tokens.chat import chat_format
from glassbox.tokens.documents import Document
from glassbox.tokens.tokenize_stage import Shards
from glassbox.tokens.tokenizer import train_tokenizer
from glassbox.train import checkpoint, loop, pretrain

TEXT = 2_500_000
"""Characters of the text, more than is read."""
FIRST, LOGGED = 5, 5
"""Steps before the clock counts; steps between lines of the log."""
Figures = dict[str, Any]


def write_tokens(folder: Path, characters: int) -> None:
    """Shards of one long document, so that both sides attend to the whole of each row."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)[:characters]
    tokenizer = train_tokenizer([text], VOCABULARY)
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "chat.json").write_text(json.dumps(chat_format(tokenizer)))
    with Shards(folder, tokenizer, 0.0) as shards:
        shards.add([Document("library", text, "library", "", 0, "")])
    (folder / "tokens.json").write_text(json.dumps(shards.summary()))


def settings(family: str, precision: str, steps: int, every: int) -> PretrainStage:
    """One phase at a constant rate, without decay, which the two sides apply to different tensors."""
    return PretrainStage(
        kind="pretrain",
        model=NETWORKS[family],
        phases=(Phase(name="all", steps=steps, mixture={"library": 1}, context=CONTEXT, rows=ROWS),),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.0, betas=(0.9, 0.999)),
        schedule=Schedule(shape="constant", warmup=0.0),
        loop=Loop(precision=precision, micro_rows=ROWS, checkpoint_every=every, log_every=LOGGED),
    )


class Clock:
    """Times of steps, and what was spent in some functions by the end of each."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.ticks: list[tuple[float, float, Counter[str], Counter[str]]] = []

    def tick(self, *_: Any) -> None:
        self.ticks.append((time.perf_counter(), time.process_time(), self.spent.copy(), self.calls.copy()))

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose time is added to what was spent under `name`."""

        def measured(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.spent[name] += time.perf_counter() - start
                self.calls[name] += 1

        return measured

    def figures(self, steps: int) -> Figures:
        """Rates from the end of step FIRST to the end of step `steps`, and seconds spent by name."""
        first, last = self.ticks[FIRST - 1], self.ticks[steps - 1]
        seconds, cpu_seconds = (after - before for before, after in zip(first[:2], last[:2], strict=True))
        tokens = (steps - FIRST) * ROWS * CONTEXT
        found: Figures = {"seconds": seconds, "spent": dict(last[2] - first[2]), "calls": dict(last[3] - first[3])}
        return found | {"rate": tokens / seconds, "cpu_rate": tokens / cpu_seconds, "cpu_seconds": cpu_seconds}


def ours(tokens: Path, config: PretrainStage, folder: Path, rank: int = 0) -> Figures:
    """The stage `pretrain` as it is, watched from outside."""
    torch.set_num_threads(1)
    clock, losses = Clock(), []
    accumulate, build = loop.accumulate, loop.build_optimizer

    def accumulated(*given: Any, **named: Any) -> Any:
        result = accumulate(*given, **named)
        losses.append(result.loss)
        return result

    def built(*given: Any) -> torch.optim.Optimizer:
        optimizer = build(*given)
        optimizer.step = clock.timed("work", optimizer.step)  # type: ignore[method-assign]
        return optimizer

    loop.accumulate, loop.build_optimizer = clock.timed("work", accumulated), built
    loop.clip_gradients = clock.timed("work", loop.clip_gradients)
    checkpoint.Saver.save = clock.timed("save", checkpoint.Saver.save)  # type: ignore[method-assign]
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder, rank=rank, on_progress=clock.tick)
    pretrain.run(config, Inputs((Artefact("tokens", "tokens", tokens),)), workspace)
    steps = config.phases[0].total_steps
    if rank:
        return {"cpu_seconds": time.process_time()}
    return clock.figures(steps) | {"loss": float(np.mean(losses[-LOGGED:]))}


class RowsOfSteps(torch.utils.data.Dataset):
    """The rows of all our steps, in their order, from a mapped file."""

    def __init__(self, path: Path) -> None:
        self.rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.rows[row].astype(np.int64))
        return {"input_ids": ids, "labels": ids}


class InOrder(transformers.Trainer):
    """The Trainer without shuffling; it keeps what router losses add to each loss, which ours are stated without."""

    routers: list[float]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **named: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **named)
        aux = outputs.get("aux_loss")
        self.routers.append(0.0 if aux is None else model.router_aux_loss_coef * float(aux))
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Ticking(transformers.TrainerCallback):
    """Tells a clock when a step has ended, and keeps the loss of the last line of the log."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.loss = clock, float("nan")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.loss = float(logs.get("loss", self.loss))


def theirs(tokens: Path, config: PretrainStage, folder: Path) -> Figures:
    """Transformers' Trainer on the same rows."""
    torch.set_num_threads(1)
    data, steps = PretrainData(tokens, config.phases, 0), config.phases[0].total_steps
    rows = folder.with_suffix(".npy")
    np.save(rows, np.concatenate([data.batch(step).ids for step in range(steps)]).astype(np.uint16))
    family = next(name for name, network in NETWORKS.items() if network == config.model)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=config.loop.micro_rows,
        gradient_accumulation_steps=ROWS // config.loop.micro_rows,
        learning_rate=config.optimizer.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        adam_beta1=config.optimizer.betas[0],
        adam_beta2=config.optimizer.betas[1],
        max_grad_norm=config.optimizer.clip,
        optim="adamw_torch_fused",
        bf16=config.loop.precision == "bf16",
        use_cpu=True,
        logging_steps=LOGGED,
        save_steps=config.loop.checkpoint_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    clock = Clock()
    ticking = Ticking(clock)
    model = peer(family, VOCABULARY)
    if config.model.experts:
        # A balanced router's loss is 1 here, as OLMoE was trained, and the number of experts of a token there.
        model.router_aux_loss_coef = config.model.experts.balance_loss / config.model.experts.top_k
    trainer = InOrder(model, arguments, train_dataset=RowsOfSteps(rows), callbacks=[ticking])
    trainer.routers = []
    trainer.remove_callback(transformers.PrinterCallback)
    trainer._save_checkpoint = clock.timed("save", trainer._save_checkpoint)
    trainer.train()
    return clock.figures(steps) | {"loss": ticking.loss - float(np.mean(trainer.routers[-LOGGED:]))}


def in_process(side: Callable[..., Figures], *given: Any) -> Figures:
    """`side(*given)` in a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(side, given)


def _as_rank(rank: int, world: int, store: str, given: tuple[Any, ...]) -> Figures:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        return ours(*given, rank=rank)
    finally:
        dist.destroy_process_group()


def over_processes(world: int, *given: Any) -> Figures:
    """Our stage with FSDP over `world` processes. CPU seconds are those of the first, times `world`."""
    with tempfile.TemporaryDirectory() as store, multiprocessing.get_context("spawn").Pool(world) as pool:
        tasks = [(rank, world, f"{store}/store", given) for rank in range(world)]
        figures = pool.starmap(_as_rank, tasks, chunksize=1)[0]
    return figures | {"cpu_rate": figures["cpu_rate"] / world}


def against_the_trainer(tokens: Path, config: PretrainStage, folder: Path) -> Figures:
    """One row of the table."""
    steps = config.phases[0].total_steps
    own, other = (in_process(side, tokens, config, folder / side.__name__) for side in (ours, theirs))
    stall, save = (one["spent"]["save"] / one["calls"]["save"] for one in (own, other))
    busy = own["seconds"] - own["spent"]["save"]
    return {
        "tokens_per_cpu_second": round(own["cpu_rate"]),
        "trainer_tokens_per_cpu_second": round(other["cpu_rate"]),
        "ratio": round(own["cpu_rate"] / other["cpu_rate"], 2),
        "tokens_per_second": round(own["rate"]),
        "trainer_tokens_per_second": round(other["rate"]),
        "ratio_of_seconds": round(own["rate"] / other["rate"], 2),
        "losses": [round(own["loss"], 4), round(other["loss"], 4)],
        "other": round(1 - own["spent"]["work"] / busy, 4),
        "stall_ms": round(1000 * stall, 1),
        "trainer_save_ms": round(1000 * save, 1),
        "stall": round(stall / (stall + 100 * busy / (steps - FIRST)), 5),
    }


def against_one(tokens: Path, config: PretrainStage, folder: Path, world: int) -> Figures:
    """What sharing out the same steps over `world` processes costs."""
    one = in_process(ours, tokens, config, folder / "one")
    many = over_processes(world, tokens, config, folder / "many")
    return {
        "processes": world,
        "tokens_per_cpu_second": round(many["cpu_rate"]),
        "of_one": round(one["cpu_rate"]),
        "cost": round(1 - many["cpu_rate"] / one["cpu_rate"], 3),
        "tokens_per_second": round(many["rate"]),
        "of_one_per_second": round(one["rate"]),
        "losses": [round(many["loss"], 4), round(one["loss"], 4)],
    }


def table(options: argparse.Namespace) -> Iterator[Figures]:
    """The rows, one for each family and precision."""
    with tempfile.TemporaryDirectory() as root:
        tokens = Path(root) / "tokens"
        write_tokens(tokens, TEXT)
        for family in options.families.split(","):
            for precision in options.precisions.split(","):
                config = settings(family, precision, options.steps, options.checkpoint_every)
                folder = Path(root) / f"{family}-{precision}"
                folder.mkdir()
                row = {"family": family, "precision": precision}
                if options.processes > 1:
                    yield row | against_one(tokens, config, folder, options.processes)
                else:
                    yield row | against_the_trainer(tokens, config, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="mistral,olmoe", help=f"comma-separated, of {', '.join(NETWORKS)}")
    parser.add_argument("--precisions", default="fp32,bf16", help="comma-separated")
    parser.add_argument("--steps", type=int, default=45, help=f"of {ROWS} x {CONTEXT} tokens, a multiple of {LOGGED}")
    parser.add_argument("--checkpoint-every", type=int, default=20, help="steps between checkpoints of both sides")
    parser.add_argument("--processes", type=int, default=1, help="share our run out over so many, against one")
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    options = parser.parse_args()
    if options.processes == 1 and not FIRST <= options.checkpoint_every < options.steps:
        parser.error(f"--checkpoint-every must be at least {FIRST} and below --steps, so that a checkpoint is counted")
    for row in table(options):
        print(
            json.dumps(row) if options.json else "  ".join(f"{key} {value}" for key, value in row.items()), flush=True
        )


if __name__ == "__main__":
    main()
