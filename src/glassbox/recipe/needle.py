"""Settings of the needle-in-a-haystack evaluation."""

from pydantic import Field, model_validator

from glassbox.recipe.base import Settings


class Needle(Settings):
    """A number is hidden in a long text and asked for at its end, for each length and depth."""

    lengths: tuple[int, ...] = Field(min_length=1)
    """Tokens of a whole row, the question and its answer included; those beyond a model's context are left out."""
    depths: tuple[float, ...] = Field(default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where the needle stands: the share of the text that is before it."""
    samples: int = Field(default=8, gt=0)
    """Texts, each with a number of its own, for each length and depth."""
    digits: int = Field(default=5, ge=1, le=12)
    """Digits of the number."""
    choices: int = Field(default=10, ge=2)
    """Numbers that the model is given to choose among, the hidden one and others of as many digits."""

    @model_validator(mode="after")
    def _check(self) -> "Needle":
        if min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise ValueError("lengths are numbers of tokens above 0, each once")
        if not all(0 <= depth <= 1 for depth in self.depths) or len(set(self.depths)) < len(self.depths):
            raise ValueError("depths are shares from 0 to 1, each once")
        if self.choices > 9 * 10 ** (self.digits - 1):
            raise ValueError(f"there are not {self.choices} different numbers of {self.digits} digits")
        return self
