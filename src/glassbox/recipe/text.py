"""Settings of the stages that make text for training: problems, synthesize, tokenizer and tokenize."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Names, Settings, Stage
from glassbox.recipe.training import Sampling

ProblemName = Literal[
    "addition",
    "subtraction",
    "multiplication",
    "remainder",
    "sequence",
    "comparison",
    "giving",
    "buying",
    "sharing",
    "comparing",
]


class ProblemKind(Settings):
    """One kind of generated problem, with the size of its numbers."""

    kind: ProblemName
    """What is asked: bare arithmetic (addition .. comparison) or a small story (giving .. comparing)."""
    low: int | None = Field(default=None, ge=1)
    """Smallest number in the question; default: the kind's own."""
    high: int | None = Field(default=None, ge=2, le=999_999)
    """Largest number drawn for the question; default: the kind's own."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the problems, relative to the other kinds."""

    @model_validator(mode="after")
    def _check(self) -> "ProblemKind":
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high} in problems of kind '{self.kind}'")
        return self


def _every_kind() -> tuple[ProblemKind, ...]:
    return tuple(ProblemKind(kind=name) for name in ProblemName.__args__)  # type: ignore[attr-defined]


class ProblemsStage(Stage):
    """Generate problems with a checkable answer and written-out reasoning."""

    gives: ClassVar[str] = "problems"

    kind: Literal["problems"]
    """Arithmetic and small stories; train and held-out problems are disjoint by construction."""
    train: int = Field(gt=0)
    """Problems to train on."""
    held_out: int = Field(gt=0)
    """Problems to evaluate on; never shown in training."""
    bare: float = Field(default=0.0, ge=0, le=1)
    """Share of the solutions that give the answer without the work, as much human-written data does: a model that has
    learnt both ways has something to find out by reinforcement."""
    kinds: tuple[ProblemKind, ...] = Field(default_factory=_every_kind, min_length=1)
    """The kinds to draw from, with ranges and weights; default: every kind with its own range."""


class Endpoint(Settings):
    """A language model behind an OpenAI-compatible endpoint."""

    url: str = Field(json_schema_extra=NOT_IDENTITY)
    """Base address, such as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name there."""
    key: str = Field(default="OPENAI_API_KEY", json_schema_extra=NOT_IDENTITY)
    """The environment variable that holds the key; unset, none is sent."""
    parallel: int = Field(default=4, gt=0, json_schema_extra=NOT_IDENTITY)
    """Requests at a time."""


class SynthesizeStage(Stage):
    """Solutions that a model writes to problems with checkable answers, those kept that check: rejection sampling
    (RFT, arXiv:2308.01825), the reasoning data of MiMo's third stage and of Moxin."""

    takes: ClassVar[dict[str, str]] = {"problems": "1", "model": "0-1"}
    gives: ClassVar[str] = "documents"

    kind: Literal["synthesize"]
    """Sample solutions, verify, keep; what is dropped is kept aside with its rule. Held-out problems are not asked."""
    endpoint: Endpoint | None = None
    """The model that is asked; default the model of the stage in `from`."""
    source: str = Field(default="synthetic", pattern="^[a-z][a-z0-9_-]*$")
    """What the documents are called in mixtures and reports."""
    problems: int = Field(gt=0)
    """Training problems to ask, drawn by the seed."""
    samples: int = Field(default=4, gt=0)
    """Solutions asked for each problem."""
    sampling: Sampling = Sampling(max_new_tokens=1024)
    """How they are drawn."""
    prompt: str = ""
    """What is asked, with {question} for the problem; default the bare question, and for an endpoint also how to give
    the answer."""
    low: float = Field(default=0.0, ge=0, le=1)
    """A problem solved by a smaller share of its samples is too hard: its solutions are dropped as likely luck."""
    high: float = Field(default=1.0, ge=0, le=1)
    """A problem solved by a larger share is too easy."""
    keep: int = Field(default=1, gt=0)
    """Most solutions kept of one problem, the first ones sampled; equal ones count once."""

    @model_validator(mode="after")
    def _check(self) -> "SynthesizeStage":
        if self.low > self.high:
            raise ValueError(f"low {self.low} must not be above high {self.high}")
        if self.prompt and "{question}" not in self.prompt:
            raise ValueError("the prompt needs {question}, where the problem is put")
        if self.source == "problems":
            raise ValueError("the source name 'problems' is kept for generated problems; use another")
        return self


class TokenizerStage(Stage):
    """Train a byte-level BPE tokenizer on the documents."""

    takes: ClassVar[dict[str, str]] = {"documents": "1+", "problems": "0-1"}
    gives: ClassVar[str] = "tokenizer"

    kind: Literal["tokenizer"]
    """Byte-level BPE with the pre-tokenisation that llama.cpp calls qwen2 (single digits)."""
    vocab_size: int = Field(ge=259, le=1_048_576)
    """Entries of the whole vocabulary: 256 bytes, merges, 3 special tokens and those reserved."""
    reserved: int = Field(default=0, ge=0)
    """Special tokens without a meaning yet, for a phase with `tangle`: `<|reserved_0|>` and so on, the last ids."""
    sample_bytes: int = Field(default=256_000_000, gt=0)
    """Most UTF-8 bytes of text to train on; above it, documents are sampled by the hash of their id."""

    @model_validator(mode="after")
    def _check(self) -> "TokenizerStage":
        if self.vocab_size < 259 + self.reserved:
            raise ValueError(
                f"vocab_size {self.vocab_size} leaves no room: 256 bytes, 3 special tokens and {self.reserved} reserved"
            )
        return self


class TokenizeStage(Stage):
    """Turn documents into token shards, split into train and held-out."""

    takes: ClassVar[dict[str, str]] = {"documents": "1+", "problems": "0-1", "tokenizer": "1"}
    gives: ClassVar[str] = "tokens"

    kind: Literal["tokenize"]
    """One shard folder per source; training problems, when given, enter as the source `problems`."""
    held_out: float = Field(default=0.01, ge=0, lt=1)
    """Share of the documents kept for evaluation, chosen by the hash of the document's id."""
    categories: Names = ()
    """Sources whose training text is divided by the category that their curate stage found, so that mixtures can
    weigh `source/category`; the class names must be folder names."""
    sizes: dict[str, int] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """Training tokens expected of a source (or of `source/category`): what `plan` counts epochs with until they are
    there."""
