"""The stage `pretrain`: a network, new or grown from an earlier one, learns the next token of packed documents."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.model.families import Sizes
from glassbox.model.folder import LoadedModel, describe_model, load_model
from glassbox.model.grow import grow
from glassbox.model.transformer import Transformer, init_weight
from glassbox.recipe.epochs import too_often
from glassbox.recipe.network import Network
from glassbox.recipe.rates import phase_rate
from glassbox.recipe.training import PretrainStage
from glassbox.tokens.batches import PretrainData, held_out_rows
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import load_tokenizer
from glassbox.train.evaluation import held_out_metrics
from glassbox.train.finish import finish
from glassbox.train.loop import Course, fit
from glassbox.train.losses import next_token
from glassbox.train.parallel.place import Placed
from glassbox.train.step import Beside

HELD_OUT_WINDOWS = 64
"""Windows of each source's held-out text measured in the loop, evenly spaced over it."""

Scorer = Callable[[Placed], dict[str, float]]
Tasks = Callable[[PretrainStage, Inputs, Workspace, Tokenizer, int], Scorer]
"""(settings, inputs, workspace, tokenizer, context) -> what scores the model on the stage's tasks."""


def run(config: PretrainStage, inputs: Inputs, workspace: Workspace, tasks: Tasks | None = None) -> None:
    """Build the network from the recipe and the tokenizer's vocabulary, with new weights or an earlier model's; train
    it over all phases, save it. `tasks` makes `config.tasks` ready: a room above this one knows how."""
    tokens = inputs.one("tokens")
    folder = TokenFolder(tokens)
    data = PretrainData(tokens, config.phases, workspace.seed)
    if wrong := too_often(data.epochs(), config.max_epochs):
        raise RequestError(wrong)
    with torch.device("meta"):
        model = Transformer(config.model, folder.vocab_size)
    source = inputs.maybe("model")
    if source is None:
        shapes = {name: weight.shape for name, weight in (*model.named_parameters(), *model.named_buffers())}
        first_values: Callable[[str], Tensor] = partial(_new, shapes, config.model, workspace)
    else:
        first_values = _carried_over(source / "model", config, folder, workspace.seed).__getitem__
    context = max(phase.context for phase in config.phases)
    sources = sorted({source.partition("/")[0] for phase in config.phases for source in phase.mixture})
    tokenizer = load_tokenizer(folder.tokenizer_folder)
    scorer = tasks(config, inputs, workspace, tokenizer, context) if tasks else None

    def evaluate(placed: Placed, step: int) -> dict[str, float]:
        rows_of = config.phases[data.locate(step - 1)[0]].context
        found = held_out(placed, tokens, sources, rows_of, config.loop.micro_rows)
        return found | scorer(placed) if scorer else found

    def describe(path: Path, step: int) -> None:
        describe_model(path, reached(config, data, folder.vocab_size, step), folder.tokenizer_folder)

    progress = fit(
        model,
        data.batch,
        next_token,
        course=lambda step: course(config, data, step),
        steps=data.steps,
        loop=config.loop,
        workspace=workspace,
        evaluate=evaluate,
        first_values=first_values,
        describe=describe,
    )
    trained = LoadedModel(model, config.trained, folder.vocab_size, context, tokenizer)
    finish(workspace, trained, progress, folder.tokenizer_folder, {"epochs": data.epochs()})


def course(config: PretrainStage, data: PretrainData, step: int) -> Course:
    """How a step of the phases trains."""
    number, rows = data.locate(step)[0], data.rows(step)
    phase = config.phases[number]
    lr = phase_rate(config, number, rows.start * phase.context, len(rows) * phase.context)
    beside = Beside(multi_token=phase.multi_token_loss, score_bias_rate=phase.score_bias_rate)
    return Course(lr, phase.optimizer or config.optimizer, beside, config.network_in(number))


def reached(config: PretrainStage, data: PretrainData, vocab_size: int, step: int) -> Sizes:
    """What the network is after so many steps: with the rotary base of the last of them and the longest rows so far."""
    number = data.locate(max(step - 1, 0))[0]
    return Sizes(config.network_in(number), vocab_size, max(phase.context for phase in config.phases[: number + 1]))


def _new(shapes: dict[str, torch.Size], network: Network, workspace: Workspace, name: str) -> Tensor:
    """The first value of a tensor of a new network."""
    return init_weight(name, torch.empty(shapes[name], device=workspace.device), network, workspace.seed)


def _carried_over(source: Path, config: PretrainStage, folder: TokenFolder, seed: int) -> dict[str, Tensor]:
    """The weights of an earlier model, grown to the recipe's network. Raises RequestError if they do not fit it."""
    start = load_model(source)
    tokenizer = load_tokenizer(folder.tokenizer_folder)
    if start.vocab_size != folder.vocab_size or start.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise RequestError(
            f"{source} reads another vocabulary ({start.vocab_size:,} tokens) than these tokens were made with "
            f"({folder.vocab_size:,}): make the tokens with the model's own tokenizer"
        )
    return grow(start.model.state_dict(), start.network, config.model, seed=seed, noise=config.upcycle_noise)


def held_out(placed: Placed, tokens: Path, sources: list[str], context: int, micro_rows: int) -> dict[str, float]:
    """What `held_out_metrics` measures on each source's held-out windows; a source without any is left out."""
    found: dict[str, float] = {}
    for source in sources:
        windows = held_out_rows(tokens, source, context, HELD_OUT_WINDOWS)
        found |= held_out_metrics(placed, windows, source, micro_rows)
    return found
