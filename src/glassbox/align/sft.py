"""The stage `sft`: fine-tune on worked solutions as conversations, loss on the assistant's tokens only."""

from typing import Any

from glassbox.align.objective import sft
from glassbox.errors import RequestError
from glassbox.judge.stage import read_problems
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.model.folder import describe_model, lay_out
from glassbox.recipe.training import SftStage
from glassbox.tokens.batches import Batch
from glassbox.tokens.chat import encode_chat
from glassbox.tokens.order import Share, epoch_indices
from glassbox.tokens.pack import pack_conversations, rows_to_batch
from glassbox.tokens.tokenizer import END_OF_TEXT, special_id
from glassbox.train.finish import finish
from glassbox.train.loop import fit, steady
from glassbox.train.step import Beside


def run(config: SftStage, inputs: Inputs, workspace: Workspace) -> None:
    """Pack the conversations into rows, train for `epochs` passes, each in its own order."""
    source = inputs.one("model") / "model"
    loaded, weights = lay_out(source)
    problems = list(read_problems(inputs.one("problems"), "train"))[: config.conversations]
    encoded = [encode_chat(loaded.tokenizer, conversation(problem)) for problem in problems]
    context = min(config.context, loaded.context)
    rows, left_out = pack_conversations(encoded, context)
    if len(rows) < config.rows:
        raise RequestError(
            f"{len(problems)} conversations fill only {len(rows)} rows of {context} tokens, fewer than one step's "
            f"{config.rows}; lower `rows` or `context`, or give more problems"
        )
    pad_id = special_id(loaded.tokenizer, END_OF_TEXT)

    def batch_at(step: int, share: Share) -> Batch:
        index = epoch_indices(step, config.rows, len(rows), workspace.seed, "sft")[share.of(config.rows)]
        return rows_to_batch(encoded, [rows[i] for i in index], context, pad_id)

    steps = config.epochs * (len(rows) // config.rows)
    beside = Beside(router_losses=False, multi_token=config.multi_token_loss)
    progress = fit(
        loaded.model,
        batch_at,
        sft,
        steps=steps,
        course=steady(config.optimizer, config.schedule, steps, beside),
        loop=config.loop,
        workspace=workspace,
        first_values=weights.read,
        describe=lambda folder, step: describe_model(folder, loaded.sizes, source),
    )
    about = {"conversations": len(problems) - len(left_out), "left_out_too_long": len(left_out), "rows": len(rows)}
    finish(workspace, loaded, progress, source, about)


def conversation(problem: dict[str, Any]) -> list[dict[str, str]]:
    """A problem and its worked solution as messages."""
    return [
        {"role": "user", "content": problem["question"]},
        {"role": "assistant", "content": problem["solution"]},
    ]
