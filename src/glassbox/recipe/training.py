"""Settings of the stages that train or score: import, pretrain, sft, dpo, grpo and evaluate."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Settings, Stage
from glassbox.recipe.loop import Loop
from glassbox.recipe.needle import Needle
from glassbox.recipe.network import Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.parallel_checks import parallel_error
from glassbox.recipe.phases import Phase
from glassbox.recipe.tasks import Task


class ImportStage(Stage):
    """Take a published checkpoint into the run."""

    gives: ClassVar[str] = "model"

    kind: Literal["import"]
    """Convert a folder as transformers writes it; the run's record holds the hash of every file of it."""
    path: str = Field(min_length=1)
    """The checkpoint's folder: config.json, safetensors files and the tokenizer."""
    model: Network
    """The network it must hold; a folder that describes another is refused."""
    vocab_size: int = Field(gt=0)
    """Rows of its embedding."""
    context: int = Field(gt=1)
    """Longest row to use it on, in tokens."""


class PretrainStage(Stage):
    """Train a model on token shards: a new one, or from the weights of an earlier one."""

    takes: ClassVar[dict[str, str]] = {"tokens": "1", "model": "0-1", "problems": "0-1"}
    gives: ClassVar[str] = "model"

    kind: Literal["pretrain"]
    """Next-token prediction on packed documents."""
    model: Network
    """The network to train. With a model in `from`, that one's network to go on with, one that is deeper, or one with
    experts in place of its dense feed-forward: the weights are carried over (`model/grow.py`)."""
    upcycle_noise: float = Field(default=0.0, ge=0, le=1)
    """Dense model to experts: share of each expert's weights that are drawn anew, so that experts differ."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    """Run one after another, with one optimizer state."""
    max_epochs: float = Field(default=4.0, gt=0)
    """Most times that a source may be read over all phases (up to 4 repeats are about as good as new text,
    arXiv:2305.16264); reading one more often is an error."""
    optimizer: Optimizer
    """The optimizer's settings, for phases without their own."""
    schedule: Schedule = Schedule(decay=0.2)
    """The learning rate over all phases without a schedule of their own, one after another, in tokens."""
    tasks: tuple[Task, ...] = Field(default=(), json_schema_extra=NOT_IDENTITY)
    """What the model is scored on beside held-out text, every `loop.evaluate_every` steps and at the end."""
    loop: Loop = Loop()
    """How the loop runs."""

    @model_validator(mode="after")
    def _check(self) -> "PretrainStage":
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"two tasks have the same name, out of {', '.join(names)}")
        if self.model.experts is not None and self.model.experts.choice == "expert":
            for task in self.tasks:
                if task.answered:
                    raise ValueError(
                        f"task '{task.name}' decodes, which a network whose experts choose their tokens cannot do"
                    )
        for phase in self.phases:
            if phase.optimizer is not None and phase.optimizer.name != self.optimizer.name:
                raise ValueError(f"phase '{phase.name}' changes the kind of optimizer; its moments could not be kept")
        if wrong := parallel_error(self.model, self.loop.parallel, [phase.context for phase in self.phases]):
            raise ValueError(wrong)
        return self

    def network_in(self, phase: int) -> Network:
        """The network as it computes in a phase: with the rotary base set last."""
        bases = [one.rope_base for one in self.phases[: phase + 1] if one.rope_base is not None]
        if not bases:
            return self.model
        attention = self.model.attention.model_copy(update={"rope_base": bases[-1]})
        return self.model.model_copy(update={"attention": attention})

    @property
    def trained(self) -> Network:
        """The network as the last phase leaves it."""
        return self.network_in(len(self.phases) - 1)


class SftStage(Stage):
    """Supervised fine-tuning on conversations, loss on assistant tokens only."""

    takes: ClassVar[dict[str, str]] = {"model": "1", "problems": "1"}
    gives: ClassVar[str] = "model"

    kind: Literal["sft"]
    """Supervised fine-tuning."""
    conversations: int | None = Field(default=None, gt=0)
    """Use only this many of the training problems; default all."""
    epochs: int = Field(default=1, gt=0)
    """Passes over the conversations."""
    context: int = Field(gt=1)
    """Row length in tokens; conversations are packed into rows whole, longer ones are counted and left out."""
    rows: int = Field(gt=0)
    """Rows in one optimizer step."""
    multi_token_loss: float = Field(default=0.1, ge=0)
    """Weight of the loss of the network's multi-token blocks, if it has any; 0 leaves them as they are."""
    optimizer: Optimizer
    """The optimizer's settings."""
    schedule: Schedule = Schedule(shape="linear")
    """The learning rate over the stage."""
    loop: Loop = Loop()
    """How the loop runs."""


class Sampling(Settings):
    """How completions are drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the smallest set of tokens whose probability reaches this."""
    top_k: int = Field(default=0, ge=0)
    """Keep this many most likely tokens; 0 keeps all."""
    max_new_tokens: int = Field(default=128, gt=0)
    """Longest completion in tokens."""
    batch: int = Field(default=64, gt=0, json_schema_extra=NOT_IDENTITY)
    """Sequences decoded side by side."""


def _needs_chance(sampling: Sampling) -> Sampling:
    if sampling.temperature == 0:
        raise ValueError("temperature must be above 0 here: equal samples of a problem teach nothing")
    return sampling


Chance = Annotated[Sampling, AfterValidator(_needs_chance)]
"""Sampling that draws."""


class DpoStage(Stage):
    """Direct preference optimisation on pairs the model samples itself and the verifier judges."""

    takes: ClassVar[dict[str, str]] = {"model": "1", "problems": "1"}
    gives: ClassVar[str] = "model"

    kind: Literal["dpo"]
    """DPO (arXiv:2305.18290)."""
    prompts: int = Field(gt=0)
    """Training problems to sample for; those whose samples are all right or all wrong give no pair and are counted."""
    samples: int = Field(default=8, gt=1)
    """Completions sampled for each problem."""
    pairs_per_prompt: int = Field(default=1, gt=0)
    """Most pairs taken from one problem."""
    sampling: Chance = Sampling()
    """How the completions are drawn."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the tie to the reference model."""
    rows: int = Field(gt=0)
    """Pairs in one optimizer step."""
    epochs: int = Field(default=1, gt=0)
    """Passes over the pairs."""
    optimizer: Optimizer
    """The optimizer's settings."""
    schedule: Schedule = Schedule(shape="linear")
    """The learning rate over the stage."""
    loop: Loop = Loop()
    """How the loop runs."""


class Grpo(Settings):
    """The objective of group-relative policy optimisation (`reinforce/objective.py`)."""

    advantage: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    """(r - mean)/std, r - mean, or r minus the mean of the others."""
    aggregate: Literal["token", "sequence"] = "token"
    """Mean over all tokens of the step (DAPO) or over each completion first (original GRPO)."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clipping distance of the probability ratio."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clipping distance of the probability ratio."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the k3 divergence from the starting model; 0 keeps no reference model."""


class GrpoStage(Stage):
    """Reinforcement learning with verifiable rewards."""

    takes: ClassVar[dict[str, str]] = {"model": "1", "problems": "1"}
    gives: ClassVar[str] = "model"

    kind: Literal["grpo"]
    """GRPO (arXiv:2402.03300)."""
    steps: int = Field(gt=0)
    """Rollout-and-update rounds."""
    prompts: int = Field(gt=0)
    """Problems in one round."""
    group: int = Field(default=8, gt=1)
    """Completions for each problem."""
    sampling: Chance = Sampling()
    """How the completions are drawn."""
    objective: Grpo = Grpo()
    """Advantages, clipping, aggregation, divergence."""
    optimizer: Optimizer
    """The optimizer's settings."""
    schedule: Schedule = Schedule(shape="constant")
    """The learning rate over the stage."""
    loop: Loop = Loop(log_every=1)
    """How the loop runs."""


class EvaluateStage(Stage):
    """Score models on held-out problems and held-out documents."""

    takes: ClassVar[dict[str, str]] = {"model": "1+", "problems": "0-1", "tokens": "0-1"}
    gives: ClassVar[str] = "scores"

    kind: Literal["evaluate"]
    """Exact match with intervals, bits per byte, and the baselines beside them."""
    problems: int | None = Field(default=None, gt=0)
    """Score only this many held-out problems; default all."""
    sampling: Sampling = Sampling(temperature=0.0)
    """How answers are drawn."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    needle: Needle | None = None
    """Hide a number in held-out text and ask for it, for each length and depth; none: do not."""
    samples_shown: int = Field(default=8, ge=0)
    """Conversations per model kept for the report."""
