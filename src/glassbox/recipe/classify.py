"""Settings of document classifiers: where labels come from, how they are trained, how documents are sampled by them."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Names, Settings, Stage
from glassbox.recipe.paths import files_at

LABEL_FILES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".parquet", ".txt", ".txt.gz", ".md")
"""Endings of the files that a folder of labelled texts is searched for."""


class LabelFile(Settings):
    """Texts of one class, or texts with their labels, in files."""

    path: str
    """JSON lines (.jsonl, .jsonl.gz), Parquet or text (one document a file); a file, a folder or a pattern."""
    text: str = "text"
    """The field that holds the text (for a line model: the page, as text or HTML)."""
    label: str = ""
    """The class of all its texts, or `field:NAME` for a field that holds each one's class or score (for a line model
    `field:NAME` holds the page's gold text)."""
    limit: int | None = Field(default=None, gt=0)
    """Read at most this many; default all."""

    def files(self) -> list[Path]:
        """The files that `path` names, in the order they are read; RequestError if there are none."""
        return files_at(self.path, LABEL_FILES, "labels", "your labelled texts")


class Judge(Settings):
    """A language model behind an OpenAI-compatible endpoint that labels a sample of the documents."""

    url: str = Field(json_schema_extra=NOT_IDENTITY)
    """Base address, such as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name there."""
    classes: Names = ()
    """Classes to choose from, or names of scores to give; default those of the labelled files."""
    documents: int = Field(default=1000, gt=0)
    """Documents to label, drawn by the hash of their id."""
    characters: int = Field(default=4000, gt=0)
    """How much of a document the judge is shown."""
    prompt: str = ""
    """What it is asked, with {text} for the document and {classes} for the classes; default ours."""
    answer_tokens: int = Field(default=1024, gt=0)
    """Longest answer in tokens; a reasoning model's thoughts count."""
    key: str = Field(default="OPENAI_API_KEY", json_schema_extra=NOT_IDENTITY)
    """The environment variable that holds the key; unset, none is sent."""
    parallel: int = Field(default=4, gt=0, json_schema_extra=NOT_IDENTITY)
    """Requests at a time."""

    @model_validator(mode="after")
    def _check(self) -> "Judge":
        if self.prompt and "{text}" not in self.prompt:
            raise ValueError("the judge's prompt needs {text}, where the document is put")
        return self


class Labels(Settings):
    """Where labels come from; all that are given are put together, and a text with two classes is left out."""

    files: tuple[LabelFile, ...] = ()
    """Labelled texts."""
    documents: str = ""
    """The class of a sample of the stage's own documents (such as `cc`, the negatives of DCLM's classifier)."""
    documents_limit: int = Field(default=10_000, gt=0)
    """How many of them."""
    judge: Judge | None = None
    """A language model that labels a sample of the stage's documents."""

    @model_validator(mode="after")
    def _check(self) -> "Labels":
        if not (self.files or self.judge):
            raise ValueError("labels need files or a judge")
        if self.judge and not (self.files or self.judge.classes):
            raise ValueError("a judge needs `classes` to choose from where no labelled file names them")
        return self


class ClassifierStage(Stage):
    """Train a classifier of documents: quality (DCLM), hundreds of categories (dots.llm1), or scores (MiMo's tags)."""

    takes: ClassVar[dict[str, str]] = {"documents": "0+"}
    gives: ClassVar[str] = "classifier"

    kind: Literal["classifier"]
    """Averaged embeddings of hashed word n-grams and a linear layer, as fastText's supervised mode."""
    labels: Labels
    """Where labels come from."""
    task: Literal["classes", "scores"] = "classes"
    """classes: one of several; scores: numbers (labels are numbers, or {"name": number} for several dimensions)."""
    ngram: int = Field(default=2, gt=0, le=10)
    """Longest word n-gram that is a feature."""
    dim: int = Field(default=64, gt=0, le=1024)
    """Width of the embeddings."""
    buckets: int = Field(default=1 << 18, gt=0, le=1 << 24)
    """Rows of the embedding table that n-grams are hashed into."""
    epochs: int = Field(default=5, gt=0)
    """Passes over the labelled texts."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate (Adagrad, a step size for every n-gram), falling linearly to 0."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled texts that measures the classifier and trains nothing."""


class ModelUse(Settings):
    """A trained classifier applied to documents: its scores are columns of every document, and may decide."""

    stage: str
    """The classifier stage."""
    sources: Names = ()
    """Sources it is applied to; default all."""
    keep: dict[str, float] = Field(default={})
    """Class (or score name) -> smallest probability (or score) to stay; all must hold."""
    drop: Names = ()
    """Classes whose documents go, when they are the most probable one."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Keep this share of the documents (by bytes), those of the highest probability of the class in `best`."""
    best: str = ""
    """The class (or score) that `share` and duplicates.prefer go by; default the first of the classifier."""


class ScoreWeight(Settings):
    """A factor 2^(slope (score - centre)) on how often a document is used (MiMo, reference values)."""

    stage: str
    """The classifier stage (task scores)."""
    score: str
    """The name of the score."""
    centre: float = 2.0
    """The score at which the factor is 1."""
    slope: float = 0.5
    """Doublings per unit of score."""


class Sampling(Settings):
    """Up- and down-sampling of documents: categories to target shares, scores to weights."""

    category: str = ""
    """The classifier stage whose most probable class is the category."""
    targets: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """Category -> its share of the bytes that come out; the rest is divided among the others as they come."""
    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(default={})
    """Category -> a factor instead (1 leaves it as it is)."""
    scores: tuple[ScoreWeight, ...] = ()
    """Factors by score."""
    budget: float | None = Field(default=None, gt=0)
    """Bytes to come out, as a multiple of the bytes that go in; default what weights and scores come to (with targets
    alone: as many as go in)."""
    least: float = Field(default=0.1, ge=0)
    """Smallest factor."""
    most: float = Field(default=4.0, gt=0)
    """Largest factor: how often a document may be repeated at most."""

    @model_validator(mode="after")
    def _check(self) -> "Sampling":
        if (self.targets or self.weights) and not self.category:
            raise ValueError("targets and weights of categories need `category`, the classifier stage that names them")
        both = sorted(set(self.targets) & set(self.weights))
        if both:
            raise ValueError(f"category '{both[0]}' has a target and a weight; it takes one of them")
        if sum(self.targets.values()) > 1 + 1e-9:
            raise ValueError(f"the targets add up to {sum(self.targets.values()):g}, more than 1")
        if self.least > self.most:
            raise ValueError(f"least ({self.least:g}) is more than most ({self.most:g})")
        if self.budget is not None and not self.least <= self.budget <= self.most:
            raise ValueError(
                f"a budget of {self.budget:g} cannot be met with factors of {self.least:g} to {self.most:g}"
            )
        return self
