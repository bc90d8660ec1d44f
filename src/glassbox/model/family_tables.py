"""Published model families as data: what each can have, and how its `config.json` names the numbers.

A family is a `model_type`, the parts its class can have, and its keys. `families.py` reads and writes by these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """One class of the transformers library."""

    model_type: str
    architecture: str
    parts: Mapping[str, tuple[Any, ...]]
    """Setting -> the values the class can have; settings that are not named are free."""
    keys: Mapping[str, str]
    """Setting -> its key, where one number stands for the other as it is; beyond `KEYS`."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keys that are written as they are here."""
    layer_types: bool = False
    """Whether the window is told layer by layer (Qwen2), not by `sliding_window` alone (Mistral)."""
    absent: Mapping[str, Any] = field(default_factory=dict)
    """What the class takes for keys that a file leaves out."""


KEYS = {
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "attention.heads": "num_attention_heads",
    "attention.kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
    "tie_embeddings": "tie_word_embeddings",
}
EXPERTS = {"experts.top_k": "num_experts_per_tok", "experts.balance_loss": "router_aux_loss_coef"}
FIXED = {"hidden_act": "silu", "attention_dropout": 0.0, "use_cache": True}
PLAIN = {
    "norm": ("rms",),
    "attention.bias": (False,),
    "attention.qk_norm": (None,),
    "attention.clip_qkv": (None,),
    "multi_token": (None,),
}
ROUTED = {"experts.choice": ("token",), "experts.score": ("softmax",), "experts.score_bias": (False,)}
ALONE = {"experts.shared": (0,), "experts.first_dense": (0,), "experts.scale": (1.0,)}
QWEN2 = {**PLAIN, "attention.bias": (True,)}
QWEN2_ABSENT = {
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "max_window_layers": 28,
}

FAMILIES = (
    Family(
        "mistral",
        "MistralForCausalLM",
        PLAIN,
        {"hidden": "intermediate_size"},
        absent={"num_key_value_heads": 8, "sliding_window": 4096, "rms_norm_eps": 1e-6},
    ),
    Family(
        "mixtral",
        "MixtralForCausalLM",
        {**PLAIN, **ROUTED, **ALONE, "experts.normalise": (True,)},
        {**EXPERTS, "experts.count": "num_local_experts", "experts.hidden": "intermediate_size"},
        {"output_router_logits": False, "router_jitter_noise": 0.0},
        absent={"num_key_value_heads": 8, "rope_theta": 1e6},
    ),
    Family(
        "olmoe",
        "OlmoeForCausalLM",
        {name: values for name, values in PLAIN.items() if name != "attention.clip_qkv"}
        | {**ROUTED, **ALONE, "attention.qk_norm": ("whole",), "attention.window": (None,)},
        {
            **EXPERTS,
            "experts.count": "num_experts",
            "experts.hidden": "intermediate_size",
            "experts.normalise": "norm_topk_prob",
            "attention.clip_qkv": "clip_qkv",
        },
        {"attention_bias": False, "output_router_logits": False},
        absent={"num_key_value_heads": None},
    ),
    Family(
        "dots1",
        "Dots1ForCausalLM",
        {**PLAIN, **ROUTED, "attention.qk_norm": ("head",), "experts.score": ("sigmoid",)}
        | {"experts.score_bias": (True,)},
        {
            "hidden": "intermediate_size",
            "experts.top_k": "num_experts_per_tok",
            "experts.count": "n_routed_experts",
            "experts.hidden": "moe_intermediate_size",
            "experts.shared": "n_shared_experts",
            "experts.first_dense": "first_k_dense_replace",
            "experts.normalise": "norm_topk_prob",
            "experts.scale": "routed_scaling_factor",
        },
        {
            "attention_bias": False,
            "moe_layer_freq": 1,
            "n_group": 1,
            "topk_group": 1,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "output_router_logits": False,
        },
        layer_types=True,
        absent={**QWEN2_ABSENT, "max_window_layers": 62},
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        QWEN2,
        {"hidden": "intermediate_size"},
        layer_types=True,
        absent=QWEN2_ABSENT,
    ),
    Family(
        "mimo",
        "MiMoForCausalLM",
        {name: values for name, values in QWEN2.items() if name != "multi_token"}
        | {"multi_token.normed": (False,), "attention.window": (None,)},
        {"hidden": "intermediate_size", "multi_token.depth": "num_nextn_predict_layers"},
        {"attention_bias": True},
        layer_types=True,
        absent={**QWEN2_ABSENT, "num_nextn_predict_layers": 0},
    ),
)
BY_TYPE = {family.model_type: family for family in FAMILIES}

HARMLESS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (),
    "partial_rotary_factor": (1.0,),
    "use_mrope": (False,),
    "rotary_pct": (1.0,),
    "quantization_config": (),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logit_scale": (1.0,),
    "n_group": (1,),
    "topk_group": (1,),
    "moe_layer_freq": (1,),
    "scoring_func": ("sigmoid", "noaux_tc"),
    "topk_method": ("noaux_tc",),
    "expert_capacity": (),
    "add_cross_attention": (False,),
}
"""Keys that change what a model computes -> the values that can be done; null is always one."""

OPTIONAL = {
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "clip_qkv": None,
    "router_aux_loss_coef": 0.0,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 0,
}
"""Keys that published files leave out -> what all classes that have them then take; see `Family.absent`, too."""
NULLS = ("sliding_window", "num_key_value_heads")
"""Keys for which null is a value of its own (no window; as many as heads); elsewhere it is the same as leaving out."""
