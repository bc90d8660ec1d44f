"""A whole recipe: its name, its seed, where it runs and its graph of stages."""

import graphlib
import re
from typing import Any

from pydantic import Field, SerializeAsAny, field_validator

from glassbox.recipe.base import NOT_IDENTITY, Settings, Stage
from glassbox.recipe.classify import ClassifierStage
from glassbox.recipe.clutter import ClutterStage
from glassbox.recipe.curation import CrawlStage, CurateStage
from glassbox.recipe.parallel_checks import ANY, parallel_error, refused
from glassbox.recipe.text import ProblemsStage, SynthesizeStage, TokenizerStage, TokenizeStage
from glassbox.recipe.training import DpoStage, EvaluateStage, GrpoStage, ImportStage, PretrainStage, SftStage

KINDS: dict[str, type[Stage]] = {
    "crawl": CrawlStage,
    "clutter": ClutterStage,
    "classifier": ClassifierStage,
    "curate": CurateStage,
    "problems": ProblemsStage,
    "synthesize": SynthesizeStage,
    "tokenizer": TokenizerStage,
    "tokenize": TokenizeStage,
    "import": ImportStage,
    "pretrain": PretrainStage,
    "sft": SftStage,
    "dpo": DpoStage,
    "grpo": GrpoStage,
    "evaluate": EvaluateStage,
}
"""Every kind of stage and its settings. What a kind does is in `glassbox/stages.py`."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Machine(Settings):
    """Where the run happens; never part of a result's identity."""

    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    """auto (a GPU if there is one), cpu or cuda."""
    threads: int = Field(default=1, gt=0)
    """CPU threads of the numeric work. One thread repeats a run bit for bit on every machine of the same kind."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after its start by which a run has stopped, restarts included: it stops after a checkpoint, a twentieth of
    the time before (at most five minutes); none: no limit."""
    watts: float = Field(default=10.0, ge=0)
    """Power of one busy core (or of the GPU) in watts, for the energy estimate."""
    price: float = Field(default=0.05, ge=0)
    """Price of the machine in US dollars an hour, for the cost estimate."""


class Recipe(Settings):
    """What the user writes."""

    name: str
    """The run's folder name: lower-case letters, digits, - and _."""
    description: str = Field(default="", json_schema_extra=NOT_IDENTITY)
    """What the recipe makes, in a sentence."""
    seed: int = Field(default=1, ge=0)
    """All randomness of the run derives from it."""
    machine: Machine = Field(default=Machine(), json_schema_extra=NOT_IDENTITY)
    """Where the run happens."""
    stages: dict[str, SerializeAsAny[Stage]] = Field(min_length=1)
    """Stage name -> its settings. The name is the folder of its artefacts."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"'{name}' is no folder name: use lower-case letters, digits, - and _, a letter first")
        return name

    def order(self) -> list[str]:
        """Stage names, each after those it takes from; otherwise as written."""
        order: list[str] = []
        while len(order) < len(self.stages):
            order.append(
                next(
                    name
                    for name, stage in self.stages.items()
                    if name not in order and all(source in order for source in stage.inputs)
                )
            )
        return order

    def descendants(self, names: set[str]) -> set[str]:
        """`names` and every stage that directly or indirectly takes from one of them."""
        found = set(names)
        for name in self.order():
            if found.intersection(self.stages[name].inputs):
                found.add(name)
        return found

    def dump(self) -> dict[str, Any]:
        """The recipe as plain data, complete with defaults, as `recipe.yaml` of a run holds it."""
        return self.model_dump(mode="json", by_alias=True)


def graph_error(stages: dict[str, Stage]) -> tuple[str, str] | None:
    """What is wrong with the graph, as (stage, sentence), or None."""
    for name, stage in stages.items():
        if not NAME.fullmatch(name):
            return name, f"'{name}' is no stage name: use lower-case letters, digits, - and _, a letter first"
        for source in stage.inputs:
            if source not in stages:
                return name, f"takes from '{source}', which is no stage"
    try:
        tuple(graphlib.TopologicalSorter({name: stage.inputs for name, stage in stages.items()}).static_order())
    except graphlib.CycleError as error:
        return error.args[1][0], "takes from itself by way of " + " -> ".join(error.args[1])
    for name, stage in stages.items():
        if len(set(stage.inputs)) < len(stage.inputs):
            return name, f"names an input twice in `from`: {', '.join(stage.inputs)}"
        given = [stages[source].gives for source in stage.inputs]
        for kind in given:
            if kind not in stage.takes:
                takes = ", ".join(stage.takes) or "nothing"
                source = next(source for source in stage.inputs if stages[source].gives == kind)
                return name, f"takes from '{source}', which gives {kind}; a {stage.kind} stage takes {takes}"
        for kind, many in stage.takes.items():
            low, _, high = many.partition("-") if "-" in many else (many.rstrip("+"), "", "" if "+" in many else many)
            if given.count(kind) < int(low) or (high and given.count(kind) > int(high)):
                return name, f"takes {many} {kind} stage(s) in `from`, but {given.count(kind)} are given"
    checks = (
        *(_reading_error, _category_error, _mixture_error, _task_error, _reserved_error),
        *(_decoding_error, _parallel_error),
    )
    return next((wrong for name in stages for check in checks if (wrong := check(stages, name))), None)


def _reading_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A source that reads what its stage does not hold."""
    stage = stages[name]
    for source in stage.sources if isinstance(stage, CurateStage) else ():
        read = stages[source.stage] if source.stage else None
        if read is None:
            continue
        holds = "pages" if source.format == "warc" else "documents"
        if read.gives != holds:
            return name, f"source '{source.name}' reads {holds} of '{source.stage}', which gives {read.gives}"
        known = [one.name for one in read.sources] if isinstance(read, CurateStage) else []
        known += [read.source] if isinstance(read, SynthesizeStage) else []
        wanted = source.subset or source.name
        if known and wanted not in known:
            return name, (
                f"source '{source.name}' reads the documents of source '{wanted}' of stage '{source.stage}', which has "
                f"{', '.join(known)}; set its subset to one of them"
            )
        if isinstance(read, CurateStage) and read.sampling and read.sampling.most > 1:
            return name, (
                f"source '{source.name}' reads stage '{source.stage}', whose sampling may use a document more than "
                "once; that is lost on the way: sample in the last curate stage, or set sampling.most there to 1"
            )
    return None


def _mixture_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A phase that draws from a source that its tokens do not hold."""
    stage = stages[name]
    if not isinstance(stage, PretrainStage):
        return None
    tokens = next(stages[source] for source in stage.inputs if stages[source].gives == "tokens")
    assert isinstance(tokens, TokenizeStage)
    known = _token_sources(stages, tokens)
    for phase in stage.phases:
        for drawn in (*phase.mixture, *phase.categories):
            source, divided, _ = drawn.partition("/")
            if source not in known:
                return name, f"phase '{phase.name}' draws from '{source}', but its tokens hold {', '.join(known)}"
            if divided and source not in tokens.categories:
                return name, (
                    f"phase '{phase.name}' names '{drawn}', but source '{source}' is not divided: name it in "
                    "`categories` of the tokenize stage"
                )
    return None


def _token_sources(stages: dict[str, Stage], tokens: TokenizeStage) -> list[str]:
    """The sources that a tokenize stage has text of."""
    feeding = [stages[source] for source in tokens.inputs]
    known = [source.name for one in feeding if isinstance(one, CurateStage) for source in one.sources]
    known += [one.source for one in feeding if isinstance(one, SynthesizeStage)]
    return known + ["problems"] * any(isinstance(one, ProblemsStage) for one in feeding)


def _category_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A source divided by categories that its documents do not have, or expected where there is none."""
    stage = stages[name]
    if not isinstance(stage, TokenizeStage):
        return None
    known = _token_sources(stages, stage)
    feeding = [one for source in stage.inputs if isinstance(one := stages[source], CurateStage)]
    sorted_out = [source.name for one in feeding if one.sampling and one.sampling.category for source in one.sources]
    for source in stage.categories:
        if source not in sorted_out:
            return name, (
                f"divides '{source}' into categories, but its documents have none: set sampling.category of the curate "
                "stage that they come from, or take it out of `categories`"
            )
    for source in stage.sizes:
        if source.partition("/")[0] not in known:
            return name, f"expects a size of '{source}' in `sizes`, but holds {', '.join(known)}"
    return None


def _parallel_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A plan that the network of an earlier stage, or the kind of stage, does not allow."""
    stage = stages[name]
    wrong = None
    if isinstance(stage, GrpoStage):
        wrong = refused(stage.loop.parallel, ANY, "it samples and trains on one process")
    elif isinstance(stage, DpoStage):
        wrong = refused(stage.loop.parallel, ANY[2:], "pairs are compared by models that are whole on a process")
    elif isinstance(stage, SftStage):
        wrong = parallel_error(built_by(stages, name).model, stage.loop.parallel, [stage.context])
    return (name, wrong) if wrong else None


def _reserved_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A phase that tangles with more reserved tokens than its tokenizer has."""
    stage = stages[name]
    if not isinstance(stage, PretrainStage):
        return None
    tokens = next(stages[source] for source in stage.inputs if stages[source].gives == "tokens")
    for source in tokens.inputs:
        tokenizer = stages[source]
        for phase in stage.phases:
            needed = phase.tangle.tokens if phase.tangle else 0
            if isinstance(tokenizer, TokenizerStage) and tokenizer.reserved < needed:
                return name, (
                    f"phase '{phase.name}' tangles with {needed} reserved tokens, but '{source}' has "
                    f"{tokenizer.reserved}; set its reserved to {needed}"
                )
    return None


def _task_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A task on the problems of a stage that is not in `from`."""
    stage = stages[name]
    for task in stage.tasks if isinstance(stage, PretrainStage) else ():
        if task.rows is None and not any(stages[source].gives == "problems" for source in stage.inputs):
            return name, f"task '{task.name}' is put with held-out problems; add a problems stage to `from`"
    return None


def _decoding_error(stages: dict[str, Stage], name: str) -> tuple[str, str] | None:
    """A stage that decodes from a network that cannot, or has nothing to hide needles in."""
    stage = stages[name]
    inputs = [stages[source].gives for source in stage.inputs]
    decodes = isinstance(stage, (DpoStage, GrpoStage, SynthesizeStage))
    if isinstance(stage, EvaluateStage):
        if stage.needle and "tokens" not in inputs:
            return name, "hides needles in held-out text, but takes no tokens in `from`"
        decodes = stage.needle is not None or "problems" in inputs
    if not decodes:
        return None
    for source in stage.inputs:
        if stages[source].gives == "model":
            experts = built_by(stages, source).model.experts
            if experts is not None and experts.choice == "expert":
                return name, (
                    f"decodes with the model of '{source}', whose experts choose their tokens among all of a row, "
                    "later ones included; leave the stage out, or train with experts.choice: token"
                )
    return None


def built_by(stages: dict[str, Stage], name: str) -> PretrainStage | ImportStage:
    """The stage whose settings say what network the model has that stage `name` gives, found by following `from`."""
    stage = stages[name]
    if isinstance(stage, (PretrainStage, ImportStage)):
        return stage
    return built_by(stages, next(source for source in stage.inputs if stages[source].gives == "model"))


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    for stage in KINDS.values():
        one = stage.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(one.pop("$defs", {}))
        definitions[stage.__name__] = one
    definitions.pop("Stage", None)
    schema["properties"]["stages"]["additionalProperties"] = {
        "oneOf": [{"$ref": f"#/$defs/{stage.__name__}"} for stage in KINDS.values()],
        "discriminator": {"propertyName": "kind"},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "glassbox recipe"}
