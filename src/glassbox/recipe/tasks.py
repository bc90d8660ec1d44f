"""Settings of the tasks that a model is scored on while it trains."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import Settings
from glassbox.recipe.paths import files_at

TASK_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
"""What a folder of task rows is searched for."""
ANSWERED = ("gsm8k", "problems")
"""Forms whose answer the model writes; in the others it chooses among given ones."""
WITH_EXAMPLES = ("mmlu_var",)
"""Forms that say themselves how many examples stand before a question."""


class TaskRows(Settings):
    """Where the rows of a task are."""

    path: str = Field(min_length=1)
    """JSON lines (.jsonl, .jsonl.gz) or Parquet: a file, a folder or a pattern; or hf://NAME, a Hugging Face data
    set."""
    subset: str = ""
    """hf: the data set's configuration."""
    split: str = ""
    """hf: the split. Of files: only rows whose field `split` says so; default all."""

    def files(self, task: str) -> list[Path]:
        """The files, sorted; none of a data set. Raises RequestError if there is none."""
        return [] if self.path.startswith("hf://") else files_at(self.path, TASK_ENDINGS, f"task '{task}'")

    @model_validator(mode="after")
    def _check(self) -> "TaskRows":
        if self.path.startswith("hf://") and not self.split:
            raise ValueError(f"{self.path}: a Hugging Face data set needs a split")
        if self.subset and not self.path.startswith("hf://"):
            raise ValueError(f"{self.path}: subset means nothing to files")
        return self


class Task(Settings):
    """A task that the model is scored on in the loop, every `loop.evaluate_every` steps."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$")
    """What metrics and report call it."""
    form: Literal[
        "piqa",
        "hellaswag",
        "winogrande",
        "openbookqa",
        "boolq",
        "sciq",
        "arc_easy",
        "arc_challenge",
        "copa",
        "commonsense_qa",
        "social_iqa",
        "mmlu_var",
        "mmlu_mc",
        "cloze",
        "gsm8k",
        "problems",
    ]
    """How a row becomes a question: the public set whose layout the rows have; cloze (rows of query, choices, gold) or
    problems (question, solution, answer). docs/evaluation.md has the formats and what is measured."""
    rows: TaskRows | None = None
    """The rows to score; default, for form problems alone, the held-out problems of the stage in `from`."""
    examples: TaskRows | None = None
    """Rows that examples are taken from, the first ones; default, for form problems, the stage's training problems."""
    shots: int = Field(default=0, ge=0)
    """Solved examples before each question. The form mmlu_var has its own: none to five."""
    limit: int | None = Field(default=None, gt=0)
    """Score only this many rows, evenly spaced; default all."""
    max_new_tokens: int = Field(default=128, gt=0)
    """Longest answer in tokens, where the model writes one (gsm8k, problems)."""

    @property
    def answered(self) -> bool:
        """Whether the model writes the answer."""
        return self.form in ANSWERED

    @model_validator(mode="after")
    def _check(self) -> "Task":
        if self.rows is None and self.form != "problems":
            raise ValueError(f"task '{self.name}' needs rows")
        if self.form in WITH_EXAMPLES and self.shots:
            raise ValueError(f"task '{self.name}': the form {self.form} has its own examples; leave shots out")
        wanted = self.form in WITH_EXAMPLES or (self.shots > 0 and (self.form != "problems" or self.rows is not None))
        if wanted and self.examples is None:
            raise ValueError(f"task '{self.name}' needs rows in `examples` to take its examples from")
        return self
