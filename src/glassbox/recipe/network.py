"""The network's settings: one class per part. A published model family is a set of these values, not code."""

from typing import Literal

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
    bias: bool = False
    """Whether queries, keys and values get a bias (Qwen2, MiMo); the output has none."""
    qk_norm: Literal["whole", "head"] | None = None
    """RMSNorm with gain on queries and keys before rotation: whole projection (OLMoE) or head by head (dots.llm1)."""
    clip_qkv: float | None = Field(default=None, gt=0)
    """Bound on the size of each element of queries, keys and values, after the norm and before rotation."""


class Experts(Settings):
    """Dropless mixture of SwiGLU experts and how its router chooses and is balanced."""

    count: int = Field(gt=1)
    """Routed experts in a layer."""
    top_k: int = Field(gt=0)
    """Experts computed for a token (expert choice: on average)."""
    hidden: int = Field(gt=0)
    """Inner width of one expert in channels."""
    shared: int = Field(default=0, ge=0)
    """Experts that every token passes through besides, computed as one feed-forward of `shared * hidden`."""
    first_dense: int = Field(default=0, ge=0)
    """Layers at the bottom that keep a dense feed-forward of the network's `hidden`."""
    choice: Literal["token", "expert"] = "token"
    """Who chooses: each token its `top_k` experts, or each expert its tokens of a row (not causal: training only)."""
    score: Literal["softmax", "sigmoid"] = "softmax"
    """What turns the router's logits into scores."""
    normalise: bool = False
    """Whether the chosen experts' scores are rescaled to sum to 1 (Mixtral, dots.llm1) or left as they are (OLMoE)."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on the chosen experts' weights, shared experts not included (dots.llm1: 2.5)."""
    score_bias: bool = False
    """Whether a bias per expert, moved against its load, steers the choice but not the weights (arXiv:2408.15664)."""
    balance_loss: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss over a micro-batch (OLMoE, section 2)."""
    z_loss: float = Field(default=0.001, ge=0)
    """Weight of the router z-loss (OLMoE, section 2)."""
    sequence_loss: float = Field(default=0.0, ge=0)
    """Weight of the balance loss over each row, summed over layers (DeepSeek-V3, section 2.1.2)."""

    @model_validator(mode="after")
    def _check(self) -> "Experts":
        if self.top_k > self.count:
            raise ValueError(f"top_k is {self.top_k} but there are only {self.count} experts")
        if self.choice == "expert" and (self.score_bias or self.normalise or self.balance_loss or self.sequence_loss):
            raise ValueError(
                "experts that choose their tokens are balanced by construction and weigh them by the bare score: set "
                "balance_loss and sequence_loss to 0, score_bias and normalise to false"
            )
        return self


class MultiToken(Settings):
    """Multi-token prediction: blocks after the last layer that predict tokens further ahead (MiMo, section 2.2).

    Block k takes the last layer's state at position i and the embedding of token i + k, and predicts token i + k + 1
    through the network's own embedding and head.
    """

    depth: int = Field(default=1, gt=0)
    """Number of blocks: the k-th predicts k + 1 tokens ahead."""
    normed: bool = False
    """Whether the blocks take the state after the network's final norm or before it (MiMo's own code)."""


class Network(Settings):
    """A decoder-only transformer: pre-norm blocks of attention and a SwiGLU feed-forward, dense or of experts."""

    dim: int = Field(gt=0)
    """Width of the residual stream in channels."""
    layers: int = Field(gt=0)
    """Number of blocks."""
    attention: Attention
    """The attention of every block."""
    hidden: int | None = Field(default=None, gt=0)
    """Inner width of a dense feed-forward in channels; with `experts` only for their `first_dense` layers."""
    experts: Experts | None = None
    """A mixture of experts in place of the dense feed-forward."""
    multi_token: MultiToken | None = None
    """Blocks that predict further ahead, for training and for drafting."""
    tie_embeddings: bool = False
    """Whether the output head shares the embedding's matrix."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm with gain, or LayerNorm without parameters (OLMoE's ablation)."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square (variance) in norms."""
    init: Literal["truncated", "normal"] = "truncated"
    """Distribution of the initial weights: normal, cut at three deviations or not."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights."""
    mup_base: int | None = Field(default=None, gt=0)
    """Width whose learning rate and deviation are tuned; from it both are carried to `dim` by muP (keep head_dim)."""

    @model_validator(mode="after")
    def _check(self) -> "Network":
        dense = self.layers if self.experts is None else self.experts.first_dense
        if dense > self.layers or (self.experts is not None and dense == self.layers):
            raise ValueError(f"first_dense {dense} leaves none of {self.layers} layers to the experts")
        if (self.hidden is None) == (dense > 0):
            raise ValueError(
                "give either `hidden` (dense feed-forward) or `experts`, not both and not neither; both only with "
                "`experts.first_dense`"
            )
        if self.attention.heads % self.attention.kv_heads:
            raise ValueError(f"kv_heads {self.attention.kv_heads} must divide heads {self.attention.heads}")
        if self.attention.head_dim is None and self.dim % self.attention.heads:
            raise ValueError(f"heads {self.attention.heads} must divide dim {self.dim}, or give head_dim")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even for rotary positions")
        return self

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim or self.dim // self.attention.heads

    @property
    def dense_layers(self) -> int:
        """Layers with a dense feed-forward; the rest have experts."""
        return self.layers if self.experts is None else self.experts.first_dense
