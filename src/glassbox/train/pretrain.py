"""The stage `pretrain`: a network, new or grown from an earlier one, learns the next token of packed documents."""

from pathlib import Path

from torch import Tensor

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.model.folder import LoadedModel, load_model
from glassbox.model.grow import grow
from glassbox.model.transformer import Transformer
from glassbox.recipe.training import PretrainStage
from glassbox.tokens.batches import PretrainData, held_out_rows
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import load_tokenizer
from glassbox.train.evaluation import held_out_metrics
from glassbox.train.finish import finish
from glassbox.train.loop import Beside, Course, fit
from glassbox.train.losses import next_token
from glassbox.train.schedule import factor

HELD_OUT_WINDOWS = 64
"""Windows of each source's held-out text measured in the loop, evenly spaced over it."""


def run(config: PretrainStage, inputs: Inputs, workspace: Workspace) -> None:
    """Build the network from the recipe and the tokenizer's vocabulary, with new weights or an earlier model's; train
    it over all phases, save it."""
    tokens = inputs.one("tokens")
    folder = TokenFolder(tokens)
    data = PretrainData(tokens, config.phases, workspace.seed)
    model = Transformer(config.model, folder.vocab_size)
    source = inputs.maybe("model")
    if source is None:
        model.init_weights(workspace.seed)
    else:
        model.load_state_dict(_carried_over(source / "model", config, folder, workspace.seed))
    model.to(workspace.device)
    context = max(phase.context for phase in config.phases)
    sources = sorted({source for phase in config.phases for source in phase.mixture})

    progress = fit(
        model,
        data.batch,
        next_token,
        course=lambda step: course(config, data, step),
        steps=data.steps,
        loop=config.loop,
        workspace=workspace,
        evaluate=lambda: held_out(model, tokens, sources, context, config.loop.micro_rows),
    )
    tokenizer = load_tokenizer(folder.tokenizer_folder)
    trained = LoadedModel(model, config.trained, folder.vocab_size, context, tokenizer)
    finish(workspace, trained, progress, folder.tokenizer_folder, {"epochs": data.epochs()})


def course(config: PretrainStage, data: PretrainData, step: int) -> Course:
    """How a step of the phases trains. A phase's own schedule spans its tokens; the stage's spans those of all phases
    without one, one after another."""
    number = data.locate(step)[0]
    phase, optimizer = config.phases[number], config.phases[number].optimizer or config.optimizer
    alike = [number] if phase.schedule else [n for n, one in enumerate(config.phases) if not one.schedule]
    done = sum(config.phases[n].total_tokens for n in alike if n < number) + data.rows(step).start * phase.context
    total = sum(config.phases[n].total_tokens for n in alike)
    rate = factor(phase.schedule or config.schedule, done, len(data.rows(step)) * phase.context, total)
    beside = Beside(multi_token=phase.multi_token_loss, score_bias_rate=phase.score_bias_rate)
    return Course(optimizer.lr * rate, optimizer, beside, config.network_in(number))


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


def held_out(model: Transformer, tokens: Path, sources: list[str], context: int, micro_rows: int) -> dict[str, float]:
    """What `held_out_metrics` measures on each source's held-out windows; a source without any is left out."""
    found: dict[str, float] = {}
    for source in sources:
        windows = held_out_rows(tokens, source, context, HELD_OUT_WINDOWS)
        found |= held_out_metrics(model, windows, source, micro_rows)
    return found
