"""Before paying: the stage graph, and what each training stage costs in FLOPs, memory, time and money."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from glassbox.errors import RequestError
from glassbox.recipe.base import Stage
from glassbox.recipe.epochs import epochs, tokens_read, too_often
from glassbox.recipe.loop import Parallel, sizes_for
from glassbox.recipe.memory import train_memory
from glassbox.recipe.network import Network
from glassbox.recipe.rates import highest_and_last
from glassbox.recipe.schema import Recipe, built_by
from glassbox.recipe.size import forward_flops, parameters, train_flops
from glassbox.recipe.text import ProblemsStage, TokenizerStage, TokenizeStage
from glassbox.recipe.training import DpoStage, GrpoStage, ImportStage, PretrainStage, SftStage


@dataclass(frozen=True)
class Device:
    """What a device can do and what it costs to rent."""

    name: str
    flops: float
    """Dense bf16 peak in FLOP/s."""
    memory: float
    """Bytes."""
    price: float
    """US dollars an hour, a typical on-demand price; check yours."""


DEVICES = {
    device.name: device
    for device in (
        Device("h100", 989e12, 80e9, 2.5),
        Device("h200", 989e12, 141e9, 3.5),
        Device("a100", 312e12, 80e9, 1.5),
        Device("l40s", 181e12, 48e9, 1.0),
        Device("rtx4090", 165e12, 24e9, 0.5),
        Device("cpu-core", 0.1e12, 8e9, 0.025),
    )
}
"""Peaks are the makers' dense bf16 figures; cpu-core is one AVX-512 core as measured."""

PROBLEM_TOKENS = 64
"""Tokens of a generated problem as a conversation, question and solution together: about the mean of all kinds."""


def plan_recipe(
    recipe: Recipe,
    *,
    device: str,
    devices: int | None,
    utilisation: float,
    sizes: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """The plan as plain data.

    Without `devices` each stage has as many as its `loop.parallel` asks for; with them those of plans whose `shard` is
    0 are filled up to that number. `sizes`: the training tokens of each shard of tokenize stages that are finished.
    Raises RequestError for an unknown device, a number of devices that a plan cannot fill, and a source that would be
    read too often.
    """
    if device not in DEVICES:
        raise RequestError(f"--device {device}: not in the table (devices: {', '.join(DEVICES)})")
    chip = DEVICES[device]
    training = [row for name in recipe.order() if (row := _training(recipe, name, chip, devices, utilisation))]
    pretraining = [(name, one) for name, one in recipe.stages.items() if isinstance(one, PretrainStage)]
    return {
        "recipe": recipe.name,
        "stages": [
            {"stage": name, "kind": stage.kind, "from": list(stage.inputs), "gives": stage.gives}
            for name, stage in ((name, recipe.stages[name]) for name in recipe.order())
        ],
        "phases": [row for name, stage in pretraining for row in _phases(name, stage)],
        "reading": [row for name, stage in pretraining for row in _reading(recipe, name, stage, sizes or {})],
        "training": training,
        "device": {**asdict(chip), "utilisation": utilisation},
        "total": {
            "flops": sum(row["flops"] for row in training),
            "hours": sum(row["hours"] for row in training),
            "dollars": sum(row["dollars"] for row in training),
        },
    }


def _phases(name: str, stage: PretrainStage) -> list[dict[str, Any]]:
    """The phases of a pretraining stage, batches in tokens."""
    rows = []
    for number, phase in enumerate(stage.phases):
        peak, end = highest_and_last(stage, number)
        first, last = (level.rows * phase.context for level in (phase.levels[0], phase.levels[-1]))
        rows.append(
            {
                "stage": name,
                "phase": phase.name,
                "tokens": phase.total_tokens,
                "steps": phase.total_steps,
                "batch_from": first,
                "batch_to": last,
                "context": phase.context,
                "peak_lr": peak,
                "end_lr": end,
                "rope_base": stage.network_in(number).attention.rope_base,
            }
        )
    return rows


def _reading(
    recipe: Recipe, name: str, stage: PretrainStage, sizes: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """What a pretraining stage reads of each shard, and how many times where its size is known."""
    source = next(source for source in stage.inputs if recipe.stages[source].gives == "tokens")
    tokenize = recipe.stages[source]
    assert isinstance(tokenize, TokenizeStage)
    known = sizes.get(source, tokenize.sizes)
    times = epochs(stage.phases, known)
    if wrong := too_often(times, stage.max_epochs):
        raise RequestError(f"stage '{name}': {wrong}")
    return [
        {"stage": name, "source": one, "tokens": round(read), "size": known.get(one), "epochs": times.get(one)}
        for one, read in tokens_read(stage.phases, known).items()
    ]


def _training(
    recipe: Recipe, name: str, chip: Device, devices: int | None, utilisation: float
) -> dict[str, Any] | None:
    stage = recipe.stages[name]
    if not isinstance(stage, (PretrainStage, SftStage, DpoStage, GrpoStage)):
        return None
    network, vocab_size, context = _model(recipe, name)
    counted = parameters(network, vocab_size)
    tokens, flops, basis = _work(recipe, stage, network, vocab_size, context)
    count = 1 if isinstance(stage, GrpoStage) else _devices(name, stage.loop.parallel, devices)
    memory = train_memory(
        network,
        vocab_size,
        stage.loop.micro_rows * _row_tokens(stage, context),
        stage.loop,
        sizes_for(stage.loop.parallel, count),
        moments=1 if stage.optimizer.name == "rmsprop" else 2,
        ahead=isinstance(stage, (PretrainStage, SftStage)),
    )
    if isinstance(stage, GrpoStage) and stage.objective.kl:
        memory = replace(memory, weights=2 * memory.weights)  # the reference model
    if isinstance(stage, DpoStage):  # it samples with the whole network on each device before that is shared out
        memory = replace(memory, weights=max(memory.weights, 4 * counted.total))
    hours = flops / (chip.flops * utilisation * count) / 3600
    return {
        "stage": name,
        "parameters": counted.total,
        "active": counted.active,
        "embedding": counted.embedding,
        "tokens": tokens,
        "flops": flops,
        "basis": basis,
        "devices": count,
        "memory": {**asdict(memory), "total": memory.total},
        "fits": memory.total <= chip.memory,
        "hours": hours,
        "dollars": hours * count * chip.price,
    }


def _devices(name: str, plan: Parallel, devices: int | None) -> int:
    """How many devices a plan takes: what it says, or where it leaves `shard` open as many as there are."""
    fixed = plan.replicate * plan.tensor * plan.context * plan.pipeline
    if plan.shard or devices is None:
        return fixed * (plan.shard or plan.expert)
    if devices % (fixed * plan.expert):
        raise RequestError(
            f"--devices {devices}: loop.parallel of stage '{name}' takes a multiple of {fixed * plan.expert} "
            f"(replicate {plan.replicate} x tensor {plan.tensor} x context {plan.context} x pipeline {plan.pipeline} x "
            f"expert {plan.expert})"
        )
    return devices


def _work(recipe: Recipe, stage: Stage, network: Network, vocab_size: int, context: int) -> tuple[int, float, str]:
    """(tokens trained on, FLOPs, what the figure rests on) of a training stage."""
    forward, with_ahead = (forward_flops(network, vocab_size, context, ahead=ahead) for ahead in (False, True))
    if isinstance(stage, PretrainStage):
        tokens = sum(phase.total_tokens for phase in stage.phases)
        flops = sum(
            phase.total_tokens * train_flops(network, vocab_size, phase.context, ahead=phase.multi_token_loss > 0)
            for phase in stage.phases
        )
        return tokens, flops, "exact"
    if isinstance(stage, SftStage):
        problems = next(s for s in (recipe.stages[n] for n in stage.inputs) if isinstance(s, ProblemsStage))
        tokens = (stage.conversations or problems.train) * stage.epochs * PROBLEM_TOKENS
        return tokens, 3 * (with_ahead if stage.multi_token_loss else forward) * tokens, "mean problem"
    if isinstance(stage, DpoStage):
        sampled = stage.prompts * stage.samples * stage.sampling.max_new_tokens
        tokens = 2 * stage.prompts * stage.pairs_per_prompt * stage.epochs * PROBLEM_TOKENS
        return tokens, forward * sampled + 4 * forward * tokens, "at most"
    assert isinstance(stage, GrpoStage)
    tokens = stage.steps * stage.prompts * stage.group * stage.sampling.max_new_tokens
    return tokens, (4 + bool(stage.objective.kl)) * forward * tokens, "at most"


def _row_tokens(stage: PretrainStage | SftStage | DpoStage | GrpoStage, context: int) -> int:
    """Tokens of one row of a micro-batch, at most: a window, a question with its reply, or a pair of those."""
    if isinstance(stage, PretrainStage):
        return context
    if isinstance(stage, SftStage):
        return stage.context
    reply = min(context, PROBLEM_TOKENS + stage.sampling.max_new_tokens)
    return 2 * reply if isinstance(stage, DpoStage) else reply


def _model(recipe: Recipe, name: str) -> tuple[Network, int, int]:
    """(network, vocabulary, context) of the model a stage trains."""
    stage = built_by(recipe.stages, name)
    if isinstance(stage, ImportStage):
        return stage.model, stage.vocab_size, stage.context
    tokens = recipe.stages[next(source for source in stage.inputs if recipe.stages[source].gives == "tokens")]
    tokenizers = (recipe.stages[source] for source in tokens.inputs)
    vocab_size = next(one.vocab_size for one in tokenizers if isinstance(one, TokenizerStage))
    return stage.model, vocab_size, max(phase.context for phase in stage.phases)


def plan_tables(plan: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The plan as (title, columns, rows) for people."""
    stages = [(row["stage"], row["kind"], ", ".join(row["from"]) or "-", row["gives"]) for row in plan["stages"]]
    phases = [
        (row["stage"], row["phase"], *(f"{row[key]:,}" for key in ("tokens", "steps")), _batch(row),
         f"{row['context']:,}", *(f"{row[key]:.4g}" for key in ("peak_lr", "end_lr")), f"{row['rope_base']:,.0f}")
        for row in plan["phases"]
    ]  # fmt: skip
    reading = [
        (row["stage"], row["source"], f"{row['tokens']:,}", *(f"{value:{form}}" if value is not None else "-"
         for value, form in ((row["size"], ","), (row["epochs"], ".3g"))))
        for row in plan["reading"]
    ]  # fmt: skip
    sizes = [
        (row["stage"], *(f"{row[key]:,}" for key in ("parameters", "active", "embedding", "tokens")),
         f"{row['flops']:.3g}", row["basis"])
        for row in plan["training"]
    ]  # fmt: skip
    memory = [
        (row["stage"], f"{row['devices']:,}", *(f"{row['memory'][key] / 1e9:.3f}" for key in
         ("weights", "gradients", "optimizer", "activations", "total")), "yes" if row["fits"] else "no")
        for row in plan["training"]
    ]  # fmt: skip
    cost = [(row["stage"], f"{row['hours']:.4g}", f"{row['dollars']:.4g}") for row in plan["training"]]
    cost.append(("total", f"{plan['total']['hours']:.4g}", f"{plan['total']['dollars']:.4g}"))
    chip = plan["device"]
    tables = [
        ("Stages", ("stage", "kind", "takes from", "gives"), stages),
        ("Phases", ("stage", "phase", "tokens", "steps", "tokens a step", "context", "peak rate", "end rate",
         "rope base"), phases),
        ("What pretraining reads", ("stage", "source", "tokens read", "there are", "epochs"), reading),
        ("Size and work", ("stage", "parameters", "active", "embedding", "tokens", "FLOPs", "basis"), sizes),
        ("Memory of one device in GB", ("stage", "devices", "weights", "gradients", "optimizer", "activations", "total",
         f"fits a {chip['name']}"), memory),
        (f"Time and money, a {chip['name']} at {chip['utilisation']:.0%} of {chip['flops'] / 1e12:g} TFLOP/s for "
         f"${chip['price']}/h", ("stage", "hours", "dollars"), cost),
    ]  # fmt: skip
    return [table for table in tables if table[2]]


def _batch(row: dict[str, Any]) -> str:
    first, last = (f"{row[key]:,}" for key in ("batch_from", "batch_to"))
    return first if first == last else f"{first} to {last}"
