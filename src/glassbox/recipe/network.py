"""The network's settings: one class per part. A published model family is a set of these values, not code."""

from pydantic import Field, model_validator

from glassbox.recipe.base import Settings


class Attention(Settings):
    """Grouped-query attention with rotary positions."""

    heads: int = Field(gt=0)
    """Number of query heads."""
    kv_heads: int = Field(gt=0)
    """Number of key/value heads; divides `heads` (equal: multi-head attention)."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of one head in channels; default `dim / heads`."""
    window: int | None = Field(default=None, gt=0)
    """Sliding window in tokens, the token itself included; none: full causal attention."""
    rope_base: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position frequencies."""


class Experts(Settings):
    """Dropless token-choice mixture of experts with softmax scores."""

    count: int = Field(gt=1)
    """Experts in a layer."""
    top_k: int = Field(gt=0)
    """Experts computed for a token."""
    hidden: int = Field(gt=0)
    """Inner width of one expert in channels."""
    normalise: bool = False
    """Whether the chosen experts' weights are rescaled to sum to 1 (Mixtral) or left as they are (OLMoE)."""
    balance_loss: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss (OLMoE, section 2)."""
    z_loss: float = Field(default=0.001, ge=0)
    """Weight of the router z-loss (OLMoE, section 2)."""

    @model_validator(mode="after")
    def _check(self) -> "Experts":
        if self.top_k > self.count:
            raise ValueError(f"top_k is {self.top_k} but there are only {self.count} experts")
        return self


class Network(Settings):
    """A decoder-only transformer: pre-norm blocks of attention and a SwiGLU feed-forward, dense or of experts."""

    dim: int = Field(gt=0)
    """Width of the residual stream in channels."""
    layers: int = Field(gt=0)
    """Number of blocks."""
    attention: Attention
    """The attention of every block."""
    hidden: int | None = Field(default=None, gt=0)
    """Inner width of a dense feed-forward in channels; leave it out when `experts` is given."""
    experts: Experts | None = None
    """A mixture of experts in place of the dense feed-forward."""
    tie_embeddings: bool = False
    """Whether the output head shares the embedding's matrix."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights, truncated at three of them."""

    @model_validator(mode="after")
    def _check(self) -> "Network":
        if (self.hidden is None) == (self.experts is None):
            raise ValueError("give either `hidden` (dense feed-forward) or `experts`, not both and not neither")
        if self.attention.heads % self.attention.kv_heads:
            raise ValueError(f"kv_heads {self.attention.kv_heads} must divide heads {self.attention.heads}")
        if self.attention.head_dim is None and self.dim % self.attention.heads:
            raise ValueError(f"heads {self.attention.heads} must divide dim {self.dim}, or give head_dim")
        if self.experts is not None and (self.dim % 8 or self.experts.hidden % 8):
            raise ValueError(
                f"with experts, dim {self.dim} and experts.hidden {self.experts.hidden} must be multiples of 8 "
                "(rows of 16 bytes in bf16, which the grouped product needs)"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even for rotary positions")
        return self

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim or self.dim // self.attention.heads
