"""Settings of everything that trains: optimizer, schedule, loop, and the stages import, pretrain, sft, dpo and grpo."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Settings, Stage
from glassbox.recipe.network import Network


class Optimizer(Settings):
    """AdamW. Matrices decay; gains and embeddings do not unless `decay_embeddings`."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the two moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay per unit of learning rate."""
    decay_embeddings: bool = False
    """Whether embedding and output head decay as well (OLMoE: yes)."""
    clip: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""


class Schedule(Settings):
    """The learning rate over a stage: linear warm-up, then a shape, as a factor of the peak."""

    shape: Literal["constant", "linear", "cosine", "wsd"] = "wsd"
    """constant; linear or cosine decay after warm-up; wsd: warm-up, stable, then a linear decay at the end."""
    warmup: float = Field(default=0.02, ge=0, le=1)
    """Share of the steps spent warming up."""
    decay: float = Field(default=0.2, ge=0, le=1)
    """wsd only: share of the steps spent in the final decay."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end, as a share of the peak."""


class Loop(Settings):
    """How the training loop runs; `precision` and `micro_rows` decide results, `compile` at most their last bits."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of matrix products; weights, norms, softmax, router and loss stay in fp32. fp16 scales the loss by
    itself and needs a GPU; a CPU computes in bf16 instead."""
    micro_rows: int = Field(default=8, gt=0)
    """Sequences of one forward pass; a step accumulates as many passes as it needs."""
    recompute: Literal["none", "selective", "full"] = Field(default="none", json_schema_extra=NOT_IDENTITY)
    """What the backward pass computes again to save memory: nothing; all but matrix products and attention; or whole
    blocks. The result is the same."""
    compile: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Whether blocks go through torch.compile (pays on GPUs and long runs; needs a C++ compiler on CPU)."""
    checkpoint_every: int = Field(default=100, gt=0, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints."""
    log_every: int = Field(default=10, gt=0, json_schema_extra=NOT_IDENTITY)
    """Steps between lines of the metrics stream."""
    evaluate_every: int = Field(default=0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Steps between held-out evaluations in the loop; 0: only at the end."""


class Phase(Settings):
    """A stretch of pretraining with one mixture and context length."""

    name: str
    """What the phase is called in metrics and the report."""
    steps: int = Field(gt=0)
    """Optimizer steps."""
    mixture: dict[str, float] = Field(min_length=1)
    """Token source -> weight; weights are normalised to sum to 1."""
    context: int = Field(gt=1)
    """Sequence length in tokens."""
    rows: int = Field(gt=0)
    """Sequences in one optimizer step, over all devices."""
    multi_token_loss: float = Field(default=0.3, ge=0)
    """Weight of the loss of the network's multi-token blocks, if it has any; 0 leaves them as they are."""
    score_bias_rate: float = Field(default=1e-3, ge=0)
    """How far a step moves the routers' score biases, if they have any (arXiv:2408.15664); 0 holds them."""

    @model_validator(mode="after")
    def _check(self) -> "Phase":
        if any(weight < 0 for weight in self.mixture.values()) or not sum(self.mixture.values()) > 0:
            raise ValueError(f"the mixture of phase '{self.name}' needs weights of at least 0 that do not all vanish")
        return self


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

    takes: ClassVar[dict[str, str]] = {"tokens": "1", "model": "0-1"}
    gives: ClassVar[str] = "model"

    kind: Literal["pretrain"]
    """Next-token prediction on packed documents."""
    model: Network
    """The network to train. With a model in `from`, that one's network to go on with, one that is deeper, or one with
    experts in place of its dense feed-forward: the weights are carried over (`model/grow.py`)."""
    upcycle_noise: float = Field(default=0.0, ge=0, le=1)
    """Dense model to experts: share of each expert's weights that are drawn anew, so that experts differ."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    """Run one after another; the schedule spans them all."""
    optimizer: Optimizer
    """AdamW's settings."""
    schedule: Schedule = Schedule()
    """The learning rate over all phases."""
    loop: Loop = Loop()
    """How the loop runs."""


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
    """AdamW's settings."""
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
    """AdamW's settings."""
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
    """AdamW's settings."""
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
    samples_shown: int = Field(default=8, ge=0)
    """Conversations per model kept for the report."""
