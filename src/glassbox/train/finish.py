"""What every trainer leaves behind: the model folder, one checkpoint, and `summary.json`."""

from pathlib import Path
from typing import Any

from glassbox.ledger.workspace import Workspace
from glassbox.ledger.writing import write_json
from glassbox.model.folder import LoadedModel, save_model
from glassbox.recipe.size import parameters
from glassbox.train import checkpoint
from glassbox.train.checkpoint import Progress


def finish(
    workspace: Workspace, trained: LoadedModel, progress: Progress, tokenizer_folder: Path, about: dict[str, Any]
) -> None:
    """Save the trained model as `model/`, keep only the final checkpoint, and write `summary.json`.

    `tokenizer_folder` holds the tokenizer's files, which the model folder copies. `about` is what the stage has to add
    to the summary: counts of its data.
    """
    network, vocab_size = trained.network, trained.vocab_size
    save_model(workspace.path("model"), trained.model, network, vocab_size, trained.context, tokenizer_folder)
    checkpoint.prune(workspace.path("checkpoints"), 1)
    size = parameters(network, vocab_size)
    summary = {
        "parameters": size.total,
        "active_parameters": size.active,
        "embedding_parameters": size.embedding,
        "steps": progress.step,
        "tokens": progress.tokens,
        "labelled_tokens": progress.labels,
        "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "flops": progress.flops,
        "held_out": progress.evaluation,
        "expert_load": progress.expert_load,
    }
    write_json(workspace.path("summary.json"), summary | about)
