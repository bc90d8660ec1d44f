"""Before paying: the stage graph, and what each training stage costs in FLOPs, memory, time and money."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from glassbox.errors import RequestError
from glassbox.recipe.base import Stage
from glassbox.recipe.network import Network
from glassbox.recipe.schema import Recipe, built_by
from glassbox.recipe.size import forward_flops, parameters, train_flops, train_memory
from glassbox.recipe.text import ProblemsStage, TokenizerStage
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


def plan_recipe(recipe: Recipe, *, device: str, devices: int, utilisation: float) -> dict[str, Any]:
    """The plan as plain data. Raises RequestError for an unknown device."""
    if device not in DEVICES:
        raise RequestError(f"--device {device}: not in the table (devices: {', '.join(DEVICES)})")
    chip = DEVICES[device]
    training = [row for name in recipe.order() if (row := _training(recipe, name, chip, devices, utilisation))]
    return {
        "recipe": recipe.name,
        "stages": [
            {"stage": name, "kind": stage.kind, "from": list(stage.inputs), "gives": stage.gives}
            for name, stage in ((name, recipe.stages[name]) for name in recipe.order())
        ],
        "training": training,
        "device": {**asdict(chip), "count": devices, "utilisation": utilisation},
        "total": {
            "flops": sum(row["flops"] for row in training),
            "hours": sum(row["hours"] for row in training),
            "dollars": sum(row["dollars"] for row in training),
        },
    }


def _training(recipe: Recipe, name: str, chip: Device, devices: int, utilisation: float) -> dict[str, Any] | None:
    stage = recipe.stages[name]
    if stage.gives != "model" or isinstance(stage, ImportStage):
        return None
    network, vocab_size, context = _model(recipe, name)
    counted = parameters(network, vocab_size)
    tokens, flops, basis = _work(recipe, stage, network, vocab_size, context)
    loop = stage.loop  # type: ignore[attr-defined]
    context = getattr(stage, "context", context)
    memory = train_memory(
        network,
        vocab_size,
        loop.micro_rows * context,
        loop.precision,
        loop.recompute,
        ahead=isinstance(stage, (PretrainStage, SftStage)),
    )
    if isinstance(stage, GrpoStage) and stage.objective.kl:
        memory = replace(memory, weights=2 * memory.weights)  # the reference model
    hours = flops / (chip.flops * utilisation * devices) / 3600
    return {
        "stage": name,
        "parameters": counted.total,
        "active": counted.active,
        "embedding": counted.embedding,
        "tokens": tokens,
        "flops": flops,
        "basis": basis,
        "memory": {**asdict(memory), "total": memory.total},
        "fits": memory.total <= chip.memory,
        "hours": hours,
        "dollars": hours * devices * chip.price,
    }


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
    sizes = [
        (row["stage"], *(f"{row[key]:,}" for key in ("parameters", "active", "embedding", "tokens")),
         f"{row['flops']:.3g}", row["basis"])
        for row in plan["training"]
    ]  # fmt: skip
    memory = [
        (row["stage"], *(f"{row['memory'][key] / 1e9:.3f}" for key in
         ("weights", "gradients", "optimizer", "activations", "total")), "yes" if row["fits"] else "no: shard it")
        for row in plan["training"]
    ]  # fmt: skip
    cost = [(row["stage"], f"{row['hours']:.4g}", f"{row['dollars']:.4g}") for row in plan["training"]]
    cost.append(("total", f"{plan['total']['hours']:.4g}", f"{plan['total']['dollars']:.4g}"))
    chip = plan["device"]
    on = f"{chip['count']} x {chip['name']} at {chip['utilisation']:.0%} of {chip['flops'] / 1e12:g} TFLOP/s"
    return [
        ("Stages", ("stage", "kind", "takes from", "gives"), stages),
        ("Size and work", ("stage", "parameters", "active", "embedding", "tokens", "FLOPs", "basis"), sizes),
        (
            "Memory of one device in GB, the model whole on it",
            ("stage", "weights", "gradients", "optimizer", "activations", "total", f"fits a {chip['name']}"),
            memory,
        ),
        (f"Time and money on {on}, ${chip['price']}/h each", ("stage", "hours", "dollars"), cost),
    ]
