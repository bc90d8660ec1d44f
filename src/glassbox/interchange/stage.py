"""The stage `import`: a published checkpoint becomes a model of the run."""

import shutil
from dataclasses import asdict
from pathlib import Path

from glassbox.errors import RequestError
from glassbox.interchange.importing import import_model
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json
from glassbox.model.families import Sizes
from glassbox.model.folder import open_model, write_config
from glassbox.model.grow import TRAINING_ONLY, differences
from glassbox.recipe.training import ImportStage


def run(config: ImportStage, inputs: Inputs, workspace: Workspace) -> None:
    """Hold the folder against the recipe, convert it, compare the logits of both; `import.json` says what was read."""
    source, folder = Path(config.path).expanduser(), workspace.path("model")
    check(config, open_model(source).sizes)
    if folder.exists():  # of an attempt that was killed before the stage was sealed
        shutil.rmtree(folder)
    done = import_model(source, folder)
    write_config(folder, Sizes(config.model, config.vocab_size, config.context))
    write_json(workspace.path("import.json"), asdict(done))


def check(config: ImportStage, found: Sizes) -> None:
    """Raises RequestError naming the first setting in which the checkpoint differs from the recipe: a fine-tuned
    checkpoint whose rope_base is not its base's, say, computes something else on every text. What only training asks
    for is the recipe's from here on."""
    wrong = {f"model.{name}": values for name, values in differences(found.network, config.model).items()}
    wrong = {name: values for name, values in wrong.items() if name.removeprefix("model.") not in TRAINING_ONLY}
    if found.vocab_size != config.vocab_size:
        wrong["vocab_size"] = (found.vocab_size, config.vocab_size)
    if found.context < config.context:
        wrong["context"] = (found.context, config.context)
    if wrong:
        name, (theirs, ours) = min(wrong.items())
        raise RequestError(
            f"{config.path}: its {name} is {theirs}, the recipe's is {ours}; correct the recipe, or take another folder"
        )
