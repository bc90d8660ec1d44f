"""Settings of the phases of pretraining, and how many steps of how many rows they are."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from glassbox.recipe.base import Settings
from glassbox.recipe.optimizer import Optimizer, Schedule


class Ramp(Settings):
    """A batch size from some point of a phase on."""

    rows: int = Field(gt=0)
    """Sequences in one optimizer step."""
    after: int = Field(default=0, ge=0)
    """From this many tokens of the phase on."""
    by: int | None = Field(default=None, gt=0)
    """Grow to `rows` since the entry before in equal stretches, so many sequences at a time; none: jump at `after`."""


def _as_ramp(value: Any) -> Any:
    return [{"rows": value}] if isinstance(value, int) else value


Rows = Annotated[tuple[Ramp, ...], BeforeValidator(_as_ramp, json_schema_input_type=int | tuple[Ramp, ...])]
"""A batch size, or a list of them that grows; a single number is a list of one."""


class Tangle(Settings):
    """Long context by "Untie the Knots": documents cut, their parts shuffled, to be found again (arXiv:2409.04774,
    `tokens/tangle.py`)."""

    share: float = Field(default=0.8, gt=0, le=1)
    """Share of the rows that are tangled; the others are packed documents as ever."""
    parts: tuple[int, ...] = (2, 3)
    """Into how many parts a document of such a row is cut, each entry alike often; 1 leaves it whole."""
    span: int | None = Field(default=None, gt=0)
    """Cut every document after each so many tokens instead, and say the number of a part at its ends."""
    random_cuts: bool = True
    """Whether cuts fall anywhere or make equal parts."""
    ordered: bool = True
    """Whether the parts of a document keep their order."""
    backtrace: bool = True
    """Whether every part has a name and the last one is followed by the names in order, which the model has to say."""

    @model_validator(mode="after")
    def _check(self) -> "Tangle":
        if not self.parts or min(self.parts) < 1 or max(self.parts) < 2:
            raise ValueError("parts are numbers of at least 1, not all of them 1")
        return self

    @property
    def knots(self) -> int:
        """Reserved tokens that mark cuts: two for each cut of a document, or for spans two before and two after."""
        return 4 if self.span else 2 * (max(self.parts) - 1)

    @property
    def tokens(self) -> int:
        """Reserved tokens it needs: five tags and the knots."""
        return 5 + self.knots


@dataclass(frozen=True)
class Level:
    """A stretch of a phase with one batch size."""

    first: int
    """Its first row, counted in the phase."""
    last: int
    """One past its last row."""
    rows: int
    """Sequences in each of its steps; the last one may have fewer."""

    @property
    def steps(self) -> int:
        return -(-(self.last - self.first) // self.rows)


class Phase(Settings):
    """A stretch of pretraining with one mixture, context length and schedule."""

    name: str
    """What the phase is called in metrics and the report."""
    tokens: int | None = Field(default=None, gt=0)
    """Length in tokens, rounded up to whole rows; give either this or `steps`."""
    steps: int | None = Field(default=None, gt=0)
    """Length in optimizer steps of `rows`."""
    mixture: dict[str, float] = Field(min_length=1)
    """Token source -> weight; weights are normalised to sum to 1. `source/category` is a category of a source that
    `tokenize` divided; the source itself then is all its categories in their own shares."""
    categories: dict[str, float] = Field(default={})
    """`source/category` -> factor on its share inside its source: above 1 up-sampled, below 1 down-sampled."""
    reshuffle: bool = False
    """Whether sources are read anew in an order of the phase's own (OLMoE's anneal) rather than on from where the
    phases before left off."""
    context: int = Field(gt=1)
    """Sequence length in tokens."""
    rows: Rows
    """Sequences in one optimizer step, over all devices; or a list of them that grows with the tokens read."""
    rope_base: float | None = Field(default=None, gt=0)
    """Base of the rotary position frequencies from this phase on; none: as before it."""
    tangle: Tangle | None = None
    """Untie-the-Knots; none: documents as they are."""
    optimizer: Optimizer | None = None
    """Settings from this phase on, its peak rate among them; moments are kept. None: the stage's."""
    schedule: Schedule | None = None
    """The learning rate over this phase alone; none: the stage's schedule, over all phases without one of their own."""
    multi_token_loss: float = Field(default=0.3, ge=0)
    """Weight of the loss of the network's multi-token blocks, if it has any; 0 leaves them as they are."""
    score_bias_rate: float = Field(default=1e-3, ge=0)
    """How far a step moves the routers' score biases, if they have any (arXiv:2408.15664); 0 holds them."""

    @model_validator(mode="after")
    def _check(self) -> "Phase":
        if any(weight < 0 for weight in self.mixture.values()) or not sum(self.mixture.values()) > 0:
            raise ValueError(f"the mixture of phase '{self.name}' needs weights of at least 0 that do not all vanish")
        if (self.tokens is None) == (self.steps is None):
            raise ValueError(f"give phase '{self.name}' either `tokens` or `steps`")
        for name, factor in self.categories.items():
            if factor < 0 or "/" not in name or name.split("/")[0] not in self.mixture:
                raise ValueError(
                    f"categories of phase '{self.name}': '{name}' must be source/category of a source in its mixture, "
                    "with a factor of at least 0"
                )
        starts = [ramp.after for ramp in self.rows]
        if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise ValueError(f"rows of phase '{self.name}': the first entry starts at 0, each later one after it")
        if len(starts) > 1 and self.tokens is None:
            raise ValueError(f"rows of phase '{self.name}' grow: give its length in `tokens`")
        for before, ramp in zip((None, *self.rows), self.rows, strict=False):
            if ramp.by is not None and (before is None or ramp.rows <= before.rows):
                raise ValueError(f"rows of phase '{self.name}': `by` needs an entry of fewer rows before it")
        return self

    @cached_property
    def total_rows(self) -> int:
        """Rows of the phase."""
        if self.tokens is not None:
            return -(-self.tokens // self.context)
        assert self.steps is not None
        return self.steps * self.rows[0].rows

    @property
    def total_tokens(self) -> int:
        return self.total_rows * self.context

    @property
    def total_steps(self) -> int:
        return sum(level.steps for level in self.levels)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The phase cut where its batch size changes."""
        starts = [(0, self.rows[0].rows)]
        for before, ramp in pairwise(self.rows):
            low, high = before.after // self.context, ramp.after // self.context
            if ramp.by is not None:
                starts += _grown(low, high, before.rows, ramp)
            starts.append((high, ramp.rows))
        kept = [(first, rows) for first, rows in starts if first < self.total_rows]
        ends = [first for first, _ in kept[1:]] + [self.total_rows]
        return tuple(Level(first, last, rows) for (first, rows), last in zip(kept, ends, strict=True) if last > first)


def _grown(low: int, high: int, rows: int, ramp: Ramp) -> list[tuple[int, int]]:
    """(first row, batch size) of the stretches between two entries, all alike long: `rows`, `by` more, and so on."""
    assert ramp.by is not None
    sizes = range(rows, ramp.rows, ramp.by)
    return [(low + i * (high - low) // len(sizes), size) for i, size in enumerate(sizes) if i]
