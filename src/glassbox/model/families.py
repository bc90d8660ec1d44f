"""Published model families as data: `config.json` of Hugging Face to our settings and back.

A family is a `model_type`, the parts its class can have, and how its file names the numbers. What a network has and a
family lacks, or a file says and no network of ours can do, is refused by name: nothing is converted nearly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from glassbox.errors import RequestError
from glassbox.recipe.network import Network

Config = Mapping[str, Any]
"""The content of a `config.json`."""


class Sizes(NamedTuple):
    """What a model folder says of a model besides its weights."""

    network: Network
    vocab_size: int
    context: int
    """Longest row in tokens (`max_position_embeddings`)."""


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

FAMILIES = (
    Family(
        "mistral",
        "MistralForCausalLM",
        PLAIN,
        {"hidden": "intermediate_size"},
        absent={"sliding_window": 4096, "rms_norm_eps": 1e-6},
    ),
    Family(
        "mixtral",
        "MixtralForCausalLM",
        {**PLAIN, **ROUTED, **ALONE, "experts.normalise": (True,)},
        {**EXPERTS, "experts.count": "num_local_experts", "experts.hidden": "intermediate_size"},
        {"output_router_logits": False, "router_jitter_noise": 0.0},
        absent={"rope_theta": 1e6},
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
        absent={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 62},
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        QWEN2,
        {"hidden": "intermediate_size"},
        layer_types=True,
        absent={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28},
    ),
    Family(
        "mimo",
        "MiMoForCausalLM",
        {name: values for name, values in QWEN2.items() if name != "multi_token"}
        | {"multi_token.normed": (False,), "attention.window": (None,)},
        {"hidden": "intermediate_size", "multi_token.depth": "num_nextn_predict_layers"},
        {"attention_bias": True},
        layer_types=True,
        absent={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28, "num_nextn_predict_layers": 0},
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


def family_of(network: Network) -> Family:
    """The family that has the network's parts. Raises `RequestError` naming those that none has."""
    attention, experts = network.attention, network.experts
    if experts is None:
        dense = "mimo" if network.multi_token else "qwen2"
        family = BY_TYPE[dense if attention.bias else "mistral"]
    elif attention.qk_norm == "whole":
        family = BY_TYPE["olmoe"]
    else:
        family = BY_TYPE["dots1" if experts.score == "sigmoid" else "mixtral"]
    lacking = [
        f"{setting} {setting_of(network, setting)!r}"
        for setting, values in family.parts.items()
        if setting_of(network, setting) not in values
    ]
    if family.model_type == "olmoe" and attention.heads * network.head_dim != network.dim:
        lacking.append(f"heads * head_dim {attention.heads * network.head_dim} with dim {network.dim}")
    if family.model_type == "dots1" and not network.experts.shared:  # type: ignore[union-attr]
        lacking.append("experts.shared 0")
    if lacking:
        raise RequestError(
            f"no published family has this network: {family.architecture}, which is nearest to it, has no "
            f"{', no '.join(lacking)}"
        )
    return family


def to_config(sizes: Sizes) -> dict[str, Any]:
    """The `config.json` of a network, without what only its tokenizer and weights know (token ids, type).

    Every value is written, whatever the class's default, under the keys that transformers 4 and 5 read. A network
    under muP must be folded first (`names.Folded`). Raises `RequestError` for parts that no family has.
    """
    network = sizes.network
    family = family_of(network)
    window, base = network.attention.window, network.attention.rope_base
    config: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type, **FIXED}
    config |= {key: setting_of(network, setting) for setting, key in {**KEYS, **family.keys}.items()}
    if config.get("intermediate_size", 0) is None:  # no dense layer, but the class wants a number
        config["intermediate_size"] = config["moe_intermediate_size"]
    config |= {
        "head_dim": network.head_dim,
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.context,
        "rope_theta": base,
        "rope_scaling": None,
        "rope_parameters": {"rope_theta": base, "rope_type": "default"},
        **family.fixed,
    }
    if "attention.window" not in family.parts:
        config["sliding_window"] = window
    if family.layer_types:
        config |= {
            "sliding_window": window,
            "use_sliding_window": window is not None,
            "max_window_layers": network.layers if window is None else 0,
            "layer_types": ["full_attention" if window is None else "sliding_attention"] * network.layers,
        }
    return config


def from_config(config: Config, where: str) -> Sizes:
    """The network that a `config.json` describes; `where` names the file in errors.

    Raises `RequestError` for an unknown family, a missing key, and whatever the network could not compute exactly.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in BY_TYPE:
        raise RequestError(f"{where}: model_type {kind!r} is no family known here ({', '.join(sorted(BY_TYPE))})")
    try:
        sizes = _sizes(config, BY_TYPE[kind], where)
    except (ValidationError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise RequestError(f"{where} does not describe a model ({_sentence(error)})") from error
    family_of(sizes.network)
    return sizes


def _sizes(config: Config, family: Family, where: str) -> Sizes:
    config = {**family.absent, **{key: value for key, value in config.items() if value is not None or key in NULLS}}
    if "num_experts" in config and "num_local_experts" in family.keys.values():
        config.setdefault("num_local_experts", config["num_experts"])
    if "num_local_experts" in config and "num_experts" in family.keys.values():
        config.setdefault("num_experts", config["num_local_experts"])
    _refuse_unknown(config, family, where)
    settings: dict[str, Any] = {"init": "normal"}
    for setting, key in {**KEYS, **family.keys}.items():
        _put(settings, setting, _value(config, setting, key, where))
    for setting, values in family.parts.items():
        if len(values) == 1 and values[0] is not None:
            _put(settings, setting, values[0])
    if "experts" in settings:
        settings["experts"]["z_loss"] = 0.0  # in no file
        settings["experts"].setdefault("balance_loss", 0.0)
        if not settings["experts"].get("first_dense"):
            settings["hidden"] = None
    if not (settings.get("multi_token") or {}).get("depth"):
        settings["multi_token"] = None
    settings["attention"]["head_dim"] = _head_dim(config)
    settings["attention"]["rope_base"] = _rope_base(config, where)
    settings["attention"]["window"] = _window(config, family, where)
    vocab_size, context = (
        int(_value(config, setting, key, where))
        for setting, key in (("vocab_size", "vocab_size"), ("context", "max_position_embeddings"))
    )
    if vocab_size < 1 or context < 1:
        raise ValueError(f"vocab_size {vocab_size} and max_position_embeddings {context} must be positive")
    return Sizes(Network(**settings), vocab_size, context)


NULLS = ("sliding_window",)
"""Keys for which null is a value of its own; for the others it is the same as leaving them out."""
OPTIONAL = {
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "clip_qkv": None,
    "router_aux_loss_coef": 0.0,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 0,
    "num_key_value_heads": None,
}
"""Keys that published files leave out -> what the classes then take; of `num_key_value_heads`, the number of heads."""


def _value(config: Config, setting: str, key: str, where: str) -> Any:
    if key in config:
        return config[key]
    if key == "num_key_value_heads" and "num_attention_heads" in config:
        return config["num_attention_heads"]
    if key in OPTIONAL:
        return OPTIONAL[key]
    raise RequestError(f"{where} has no {key}, which says {setting}")


def _refuse_unknown(config: Config, family: Family, where: str) -> None:
    done = {**HARMLESS, **({"attention_bias": (True,)} if family.model_type == "mimo" else {})}
    if family.model_type == "qwen2":
        done["attention_bias"] = (True, False)  # the class has its biases whatever the file says
    for key, values in done.items():
        value = config.get(key)
        if value is not None and value not in values and not (key == "rope_scaling" and _is_default_rope(value)):
            can = f"only {' or '.join(map(repr, values))}" if values else "only null"
            raise RequestError(f"{where}: {key} {value!r} cannot be done here ({can})")


def _is_default_rope(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("rope_type", value.get("type", "default")) == "default"


def _head_dim(config: Config) -> int | None:
    """The width of a head where it is not the model's divided by its heads."""
    width, dim, heads = (config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    return None if isinstance(dim, int) and heads and width == dim / heads else width


def _rope_base(config: Config, where: str) -> float:
    """The base of the rotary frequencies, from either generation's keys."""
    new = config.get("rope_parameters") or {}
    if not _is_default_rope(new) or set(new) - {"rope_theta", "rope_type", "type", "partial_rotary_factor"}:
        raise RequestError(f"{where}: rope_parameters {new!r} cannot be done here (only rope_type 'default')")
    if new.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise RequestError(f"{where}: partial_rotary_factor {new['partial_rotary_factor']} cannot be done here")
    bases = (
        {config[key] for key in ("rope_theta",) if key in config} if "rope_theta" not in new else {new["rope_theta"]}
    )
    return bases.pop() if bases else 10_000.0


def _window(config: Config, family: Family, where: str) -> int | None:
    """The window of every layer; layers that differ are refused."""
    window, types = config.get("sliding_window"), config.get("layer_types")
    if family.layer_types and not config.get("use_sliding_window", family.model_type == "dots1"):
        window = None
    if types is None:
        first = config["max_window_layers"] if family.layer_types else 0
        layers = range(config.get("num_hidden_layers", 0))
        types = ["sliding_attention" if window and n >= first else "full_attention" for n in layers]
    if set(types) == {"full_attention"} and (window is None or family.layer_types):
        return None
    if set(types) == {"sliding_attention"} and window is not None:
        return window
    raise RequestError(
        f"{where}: layers of different attention cannot be done here (layer_types {types}, sliding_window {window})"
    )


def setting_of(network: Network, setting: str) -> Any:
    """The value of a dotted setting; None below a part that the network does not have."""
    value: Any = network
    for name in setting.split("."):
        value = None if value is None else getattr(value, name)
    return value


def _put(settings: dict[str, Any], setting: str, value: Any) -> None:
    *path, last = setting.split(".")
    for name in path:
        settings = settings.setdefault(name, {})
    settings[last] = value


def _sentence(error: Exception) -> str:
    """What was wrong, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, part['loc']))} {part['msg']}".strip() for part in error.errors())
    return str(error)
