"""Settings of the training loop: arithmetic, memory, how it is spread over devices, and what keeps it safe."""

from typing import Literal

from pydantic import Field, model_validator

from glassbox.errors import RequestError
from glassbox.recipe.base import NOT_IDENTITY, Settings

SPLIT_BACKWARD = ("InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
"""Pipeline schedules that compute gradients of inputs and of weights apart."""
V_SHAPED = ("ZBVZeroBubble", "DualPipeV")
"""Schedules in which the first process holds the first and the last stage."""


PAIRED = ("DualPipeV", "Interleaved1F1B")
"""Schedules that can do a forward and a backward pass of different micro-batches at once."""


class Parallel(Settings):
    """How a model is spread over processes, one a device: as many as the product of all dimensions but `expert`."""

    replicate: int = Field(default=1, gt=0)
    """Copies of the whole model, whose gradients are summed (HSDP's outer dimension)."""
    shard: int = Field(default=0, ge=0)
    """Processes that share out weights, gradients and moments of one copy (FSDP2); 0: as many as there are left."""
    zero: Literal[1, 2, 3] = 3
    """What is shared out: 3 weights too (gathered for each block again), 2 gradients and moments, 1 gradients only
    after a step's last micro-batch, and moments (arXiv:1910.02054)."""
    tensor: int = Field(default=1, gt=0)
    """Processes that share out attention heads and feed-forward width, and the columns of rows between them."""
    context: int = Field(default=1, gt=0)
    """Processes that share out the columns of rows, and exchange them for heads in attention (Ulysses)."""
    expert: int = Field(default=1, gt=0)
    """Processes, among those of `shard`, that share out the experts of each layer; tokens travel to them and back."""
    pipeline: int = Field(default=1, gt=0)
    """Processes that share out the layers."""
    schedule: Literal["1F1B", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"] = "1F1B"
    """Order of micro-batches in the pipeline; all but 1F1B give each process two stretches of layers."""
    overlap: bool = False
    """Whether experts' exchange of one micro-batch runs while another computes (with `expert`; DualPipeV, or
    Interleaved1F1B with a warm-up step more, as dots.llm1 ran it)."""

    @model_validator(mode="after")
    def _check(self) -> "Parallel":
        if self.shard and self.shard % self.expert:
            raise ValueError(f"expert {self.expert} must divide shard {self.shard}: experts are shared out among those")
        if self.pipeline > 1 and self.schedule in SPLIT_BACKWARD and self.zero == 3:
            raise ValueError(
                f"{self.schedule} computes the gradients of weights later, when zero: 3 has given the weights back: "
                "gradients would be wrong without an error; set zero to 2, or schedule to 1F1B or Interleaved1F1B"
            )
        if self.overlap and not (self.pipeline > 1 and self.schedule in PAIRED and self.expert > 1):
            raise ValueError(f"overlap needs pipeline above 1 with schedule {' or '.join(PAIRED)}, and expert above 1")
        return self

    @property
    def stages(self) -> int:
        """Stretches of layers in the pipeline."""
        return self.pipeline * (1 if self.schedule == "1F1B" or self.pipeline == 1 else 2)


def sizes_for(plan: Parallel, processes: int) -> dict[str, int]:
    """Length of each dimension with so many processes. Raises RequestError if they do not come out."""
    fixed = plan.replicate * plan.tensor * plan.context * plan.pipeline
    shard = plan.shard or processes // fixed
    if fixed * shard != processes or shard % plan.expert:
        raise RequestError(
            f"loop.parallel wants replicate {plan.replicate} x shard {plan.shard or 'the rest'} x tensor {plan.tensor} "
            f"x context {plan.context} x pipeline {plan.pipeline} processes (expert {plan.expert} of each shard), but "
            f"{processes} are running; start as many, or change the plan"
        )
    of = {"pipeline": plan.pipeline, "replicate": plan.replicate, "fold": shard // plan.expert}
    return of | {"context": plan.context, "expert": plan.expert, "tensor": plan.tensor}


class Safety(Settings):
    """What a long run does when something goes wrong; each event enters the run's ledger."""

    nonfinite: Literal["stop", "skip", "rewind"] = Field(default="stop", json_schema_extra=NOT_IDENTITY)
    """A loss or gradient that is not finite: stop; skip the step's update; or go back to the last checkpoint and read
    other data in place of what has been read since. A run that stopped can go on with another choice."""
    spike: float | None = Field(default=None, gt=0)
    """A step is a spike when its loss or gradient norm lies this many standard deviations above the mean of the last
    `window` steps (6 is OLMo's); none: not looked for."""
    on_spike: Literal["warn", "skip", "rewind"] = "skip"
    """What a spike does."""
    window: int = Field(default=128, gt=1)
    """Steps that a spike is measured against; half of them have to be there."""
    limit: int = Field(default=10, ge=0, json_schema_extra=NOT_IDENTITY)
    """Skips and rewinds within `window` steps that are put up with; one more stops the run."""
    watchdog: float = Field(default=1800.0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Seconds without a finished step or evaluation after which a run of several processes writes down where each
    stands and ends, so that it can be started again; 0: never."""
    slow: float = Field(default=2.0, gt=1, json_schema_extra=NOT_IDENTITY)
    """A process is reported as slow when it takes this many times the median until it first has to wait for others, and
    that costs a twentieth of the steps since the last log line and 0.1 s."""


class Loop(Settings):
    """How the training loop runs; `precision`, `micro_rows` and `safety` decide results, the rest their last bits."""

    precision: Literal["fp32", "bf16", "fp16", "float8"] = "fp32"
    """Arithmetic of matrix products; weights, norms, softmax, router, loss and moments stay in fp32. fp16 scales the
    loss by itself and needs a GPU, float8 (torchao, bf16 beside it) a Hopper one; elsewhere both compute in bf16."""
    micro_rows: int = Field(default=8, gt=0)
    """Sequences of one forward pass; a step accumulates as many passes as it needs."""
    recompute: Literal["none", "selective", "full"] = Field(default="none", json_schema_extra=NOT_IDENTITY)
    """What the backward pass computes again to save memory: nothing; all but matrix products and attention; or whole
    blocks. The result is the same."""
    compile: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Whether blocks go through torch.compile (pays on GPUs and long runs; needs a C++ compiler on CPU)."""
    parallel: Parallel = Field(default=Parallel(), json_schema_extra=NOT_IDENTITY)
    """How the model is spread over processes."""
    safety: Safety = Safety()
    """What is done about spikes, numbers that are not finite, and processes that hang."""
    checkpoint_every: int = Field(default=100, gt=0, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints; the two newest stay."""
    keep_every: int = Field(default=0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints that stay for good (OLMoE: 5,000); 0: none."""
    keep_tokens: int = Field(default=0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Tokens between checkpoints that stay for good (dots.llm1: 1 trillion); 0: none."""
    log_every: int = Field(default=10, gt=0, json_schema_extra=NOT_IDENTITY)
    """Steps between lines of the metrics stream."""
    evaluate_every: int = Field(default=0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Steps between held-out evaluations in the loop; 0: only at the end."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(default=(), json_schema_extra=NOT_IDENTITY)
    """Where the metrics go besides; training goes on if one fails."""

    @model_validator(mode="after")
    def _check(self) -> "Loop":
        if self.compile and self.parallel.pipeline > 1 and self.parallel.schedule in SPLIT_BACKWARD:
            raise ValueError(f"{self.parallel.schedule} splits the backward pass, which compiled blocks cannot do")
        if self.parallel.overlap and (self.recompute != "none" or self.compile):
            raise ValueError("overlap drives each layer's parts by itself: set recompute to none and compile to false")
        return self
