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
    """Write the last checkpoint's weights as `model/`, keep only this checkpoint (and those that stay for good), and
    write `summary.json`; of several processes the first does.

    `tokenizer_folder` holds the tokenizer's files, which the model folder copies. `about` is what the stage has to add
    to the summary: counts of its data.
    """
    if workspace.rank != 0:
        return
    checkpoints = workspace.path("checkpoints")
    tensors = checkpoint.whole_tensors(checkpoint.newest(checkpoints))
    save_model(workspace.path("model"), tensors, trained.sizes, tokenizer_folder)
    checkpoint.prune(checkpoints, 1)
    network, vocab_size, _ = trained.sizes
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
        "replaced": progress.replaced,
    }
    write_json(workspace.path("summary.json"), summary | about)
