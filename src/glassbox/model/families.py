"""Published model families: `config.json` of Hugging Face to our settings and back, by `family_tables.py`.

What a network has and a family lacks, or a file says and no network of ours can do, is refused by name: nothing is
converted nearly.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from glassbox.errors import RequestError
from glassbox.model.family_tables import BY_TYPE, FIXED, HARMLESS, KEYS, NULLS, OPTIONAL, Family
from glassbox.recipe.network import Network

Config = Mapping[str, Any]
"""The content of a `config.json`."""


class Sizes(NamedTuple):
    """What a model folder says of a model besides its weights."""

    network: Network
    vocab_size: int
    context: int
    """Longest row in tokens (`max_position_embeddings`)."""


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
    family = BY_TYPE[kind]
    try:
        sizes = _sizes(config, family, where)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        why = what_is_wrong(error, {**KEYS, **family.keys, **PLACED})
        raise RequestError(f"{where} does not describe a model ({why})") from error
    try:
        family_of(sizes.network)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from error
    return sizes


PLACED = {"attention.head_dim": "head_dim", "attention.rope_base": "rope_theta", "attention.window": "sliding_window"}
"""Setting -> the key it is read from, where that takes a function below."""


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
    if settings["attention"]["kv_heads"] is None:
        settings["attention"]["kv_heads"] = settings["attention"]["heads"]
    settings["attention"]["head_dim"] = _head_dim(config)
    settings["attention"]["rope_base"] = _rope_base(config, where)
    settings["attention"]["window"] = _window(config, family, where)
    vocab_size, context = (
        whole(_value(config, setting, key, where), key)
        for setting, key in (("vocab_size", "vocab_size"), ("context", "max_position_embeddings"))
    )
    return Sizes(Network.model_validate(settings, strict=True), vocab_size, context)


def whole(value: Any, name: str, least: int = 1) -> int:
    """The value if it is a whole number of at least `least`; `ValueError` otherwise (true, "7" and 7.0 are none)."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least {least}")
    return value


def what_is_wrong(error: Exception, names: Mapping[str, str] = {}) -> str:
    """In one line, which setting is wrong and why; `names`: setting -> what the file calls it."""
    if not isinstance(error, ValidationError):
        return str(error)
    places = ((".".join(map(str, part["loc"])), part["msg"].removeprefix("Value error, ")) for part in error.errors())
    return "; ".join(f"{names.get(place, place)}: {message}" if place else message for place, message in places)


def _value(config: Config, setting: str, key: str, where: str) -> Any:
    if key in config:
        return config[key]
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


def _head_dim(config: Config) -> Any:
    """The width of a head where it is not the model's divided by its heads."""
    width, dim, heads = (config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    return None if type(width) is type(heads) is int and width * heads == dim else width


def _rope_base(config: Config, where: str) -> Any:
    """The base of the rotary frequencies, from either generation's keys."""
    new = config.get("rope_parameters") or {}
    if not _is_default_rope(new) or set(new) - {"rope_theta", "rope_type", "type", "partial_rotary_factor"}:
        raise RequestError(f"{where}: rope_parameters {new!r} cannot be done here (only rope_type 'default')")
    if new.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise RequestError(f"{where}: partial_rotary_factor {new['partial_rotary_factor']} cannot be done here")
    return new.get("rope_theta", config.get("rope_theta", 10_000.0))


def _window(config: Config, family: Family, where: str) -> Any:
    """The window of every layer; layers that differ are refused."""
    window, types = config.get("sliding_window"), config.get("layer_types")
    layers = whole(config.get("num_hidden_layers"), "num_hidden_layers")
    if family.layer_types:
        used = config.get("use_sliding_window", family.model_type == "dots1")
        if not isinstance(used, bool):
            raise ValueError(f"use_sliding_window: {used!r} is neither true nor false")
        window = window if used else None
    if types is None:
        first = whole(config["max_window_layers"], "max_window_layers", 0) if family.layer_types else 0
        kinds = {"sliding_attention" if window and n >= first else "full_attention" for n in (0, layers - 1)}
    elif not isinstance(types, list) or len(types) != layers:
        raise ValueError(f"layer_types: not a list of num_hidden_layers {layers} names")
    else:
        kinds = set(types)
    if kinds == {"full_attention"} and (window is None or family.layer_types):
        return None
    if kinds == {"sliding_attention"} and window is not None:
        return window
    raise RequestError(
        f"{where}: layers of different attention cannot be done here (layer_types {', '.join(map(str, kinds))}; "
        f"sliding_window {window!r})"
    )
