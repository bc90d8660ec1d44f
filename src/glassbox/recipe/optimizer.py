"""Settings of the optimizer and of the learning rate."""

from typing import Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import Settings


class Optimizer(Settings):
    """AdamW or RMSProp. Matrices decay; gains and embeddings do not unless `decay_embeddings`."""

    name: Literal["adamw", "rmsprop"] = "adamw"
    """adamw (arXiv:1711.05101); rmsprop: no first moment, the second of `betas` smooths the squares (OLMoE's KTO:
    0.99)."""
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
    decay_vectors: bool = False
    """Whether gains and biases decay as well (OLMoE, Moxin: yes)."""
    clip: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""


class Schedule(Settings):
    """The learning rate as a factor of the peak: linear warm-up, a stable stretch, then a decay.

    With `decay` below 1 it is WSD (warm-up, stable, decay; MiniCPM, arXiv:2404.06395, section 4).
    """

    shape: Literal["constant", "linear", "cosine", "exponential", "sqrt"] = "linear"
    """Form of the decay; sqrt is 1 - sqrt(share of the decay done) (arXiv:2405.18392); constant: none."""
    warmup: float = Field(default=0.02, ge=0)
    """Share of the stretch spent warming up; above 1: so many tokens of pretraining, or steps of other stages."""
    start: float = Field(default=0.0, ge=0, le=1)
    """Where the warm-up starts, as a share of the peak (OLMoE: 0.1)."""
    decay: float = Field(default=1.0, ge=0)
    """Share of the stretch spent in the decay at its end, at most all after the warm-up; above 1: tokens or steps."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end, as a share of the peak."""

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        if self.shape == "exponential" and not self.floor:
            raise ValueError("an exponential decay never reaches 0: give it a floor above 0")
        return self
