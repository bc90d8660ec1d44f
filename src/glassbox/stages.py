"""Kind of stage -> the function that does it: the one table that ties rooms to recipes.

Functions are imported when their stage runs: curation never loads PyTorch, training never loads the data engine.
"""

from collections.abc import Mapping
from importlib import import_module

from glassbox.ledger.runner import StageFunction
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.base import Stage
from glassbox.recipe.training import PretrainStage

WHERE: dict[str, str] = {
    "crawl": "glassbox.curate.crawl",
    "clutter": "glassbox.curate.models.clutter_stage",
    "classifier": "glassbox.curate.models.classifier_stage",
    "curate": "glassbox.curate.stage",
    "problems": "glassbox.judge.stage",
    "synthesize": "glassbox.align.synthesize",
    "tokenizer": "glassbox.tokens.tokenizer_stage",
    "tokenize": "glassbox.tokens.tokenize_stage",
    "import": "glassbox.interchange.stage",
    "pretrain": "glassbox.train.pretrain",
    "sft": "glassbox.align.sft",
    "dpo": "glassbox.align.dpo",
    "grpo": "glassbox.reinforce.stage",
    "evaluate": "glassbox.evaluate.stage",
}


NUMERIC = ("import", "pretrain", "sft", "dpo", "grpo", "synthesize", "evaluate")
"""Kinds that compute with PyTorch, on as many threads as the recipe says: results can depend on their number."""

TOGETHER = ("pretrain", "sft", "dpo")
"""Kinds that all processes of a run do together, each with its share of the model and the data; process 0 does the
others alone."""


def _function(kind: str) -> StageFunction:
    def run(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        if kind in NUMERIC:
            import_module("torch").set_num_threads(workspace.threads)
        beside = {}
        if isinstance(config, PretrainStage) and config.tasks:
            beside["tasks"] = import_module("glassbox.evaluate.in_loop").scorer
        import_module(WHERE[kind]).run(config, inputs, workspace, **beside)

    return run


STAGES: Mapping[str, StageFunction] = {kind: _function(kind) for kind in WHERE}
