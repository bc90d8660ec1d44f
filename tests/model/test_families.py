"""The published `config.json` files: sizes to the parameter, both generations of keys, the classes' own defaults."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, Dots1Config, MistralConfig, MixtralConfig, OlmoeConfig, Qwen2Config

from glassbox.errors import RequestError
from glassbox.model.families import Sizes, from_config, to_config
from glassbox.model.names import hub_names, own_entries, parts, their_entries
from glassbox.recipe.size import parameters

from .published import DOTS, EURUX, MIMO, MOXIN, OLMOE


@pytest.mark.parametrize(
    ("config", "total", "active", "tensors"),
    [
        (MOXIN, 8_114_180_096, 8_114_180_096, 327),
        (MOXIN | {"num_hidden_layers": 32}, 7_241_732_096, 7_241_732_096, 291),
        (OLMOE, 6_919_161_856, 1_282_017_280, 3_219),
        (DOTS, 142_774_373_888, 14_016_581_120, 24_231),
        (EURUX, 140_620_634_112, 39_152_031_744, 56 * 31 + 3),
        (MIMO, 7_833_409_536, None, 36 * 12 + 3 + 16),
        (MIMO | {"num_nextn_predict_layers": 0}, 7_622_619_136, 7_622_619_136, 36 * 12 + 3),
    ],
    ids=["moxin", "mistral-7b", "olmoe", "dots", "eurux", "mimo", "mimo-plain"],
)
def test_the_published_sizes(config, total, active, tensors):
    sizes = from_config(config, "here")
    counted = parameters(sizes.network, sizes.vocab_size)
    assert counted.total == total
    assert active is None or counted.active == active
    ours = own_entries(sizes.network, sizes.vocab_size)
    theirs = their_entries(parts(sizes.network, ours, hub_names(config["model_type"])), ours)
    assert len(theirs) == tensors
    written = to_config(sizes)
    for key, value in config.items():
        if key in ("bos_token_id", "eos_token_id", "torch_dtype", "transformers_version", "scoring_func"):
            continue
        if config["model_type"] == "mimo" and key in ("sliding_window", "max_window_layers"):
            continue  # carried along unused
        if config.get("num_nextn_predict_layers") == 0:  # exported as the Qwen2 that it is
            continue
        assert written[key] == value, key
    assert from_config(written, "here") == sizes


def test_names_and_shapes_of_the_largest_checkpoint():
    sizes = from_config(DOTS, "here")
    ours = own_entries(sizes.network, sizes.vocab_size)
    theirs = their_entries(parts(sizes.network, ours, hub_names("dots1")), ours)
    listed = {
        "model.embed_tokens.weight": (152064, 4096),
        "model.layers.61.self_attn.k_norm.weight": (128,),
        "model.layers.0.mlp.up_proj.weight": (10944, 4096),
        "model.layers.0.mlp.down_proj.weight": (4096, 10944),
        "model.layers.1.mlp.gate.weight": (128, 4096),
        "model.layers.61.mlp.gate.e_score_correction_bias": (128,),
        "model.layers.30.mlp.experts.127.gate_proj.weight": (1408, 4096),
        "model.layers.30.mlp.experts.0.down_proj.weight": (4096, 1408),
        "model.layers.1.mlp.shared_experts.up_proj.weight": (2816, 4096),
        "model.layers.1.mlp.shared_experts.down_proj.weight": (4096, 2816),
        "lm_head.weight": (152064, 4096),
    }
    assert {name: theirs[name].shape for name in listed} == listed


ODD = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3)
ODD = ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.sampled_from(["rope_type", "rope_theta", "x"]), ODD)


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from([MOXIN, OLMOE, DOTS, EURUX, MIMO]),
    key=st.sampled_from(
        sorted({*MOXIN, *OLMOE, *DOTS, *MIMO, "rope_parameters", "layer_types", "quantization_config"})
    ),
    value=ODD,
)
def test_an_odd_value_is_one_sentence_or_understood(base, key, value):
    said = ""
    try:
        sizes = from_config({**base, key: value}, "here")
    except RequestError as error:
        said = str(error)
    if said:
        assert said.startswith("here")
        assert "\n" not in said
    else:
        assert from_config(to_config(sizes), "here") == sizes


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
CLASSES = {
    "mistral": MistralConfig(**SMALL, intermediate_size=24),
    "mixtral": MixtralConfig(**SMALL, intermediate_size=24, sliding_window=9),
    "olmoe": OlmoeConfig(**SMALL, intermediate_size=24, clip_qkv=1.5),
    "dots1": Dots1Config(
        **SMALL, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, first_k_dense_replace=1
    ),
    "qwen2": Qwen2Config(**SMALL, intermediate_size=24, use_sliding_window=True, sliding_window=9, max_window_layers=0),
}


@pytest.mark.parametrize("name", CLASSES)
def test_both_generations_of_keys_and_the_classes_defaults(name):
    """What transformers 5 writes, the same in transformers 4's words, and the same with all defaults left out."""
    theirs = CLASSES[name]
    new = theirs.to_dict()
    assert "rope_parameters" in new
    sizes = from_config(new, "here")
    old = {key: value for key, value in new.items() if key not in ("rope_parameters", "layer_types", "dtype")}
    old |= {"rope_theta": new["rope_parameters"]["rope_theta"], "rope_scaling": None, "torch_dtype": "bfloat16"}
    assert from_config(old, "here") == sizes
    short = {
        key: value
        for key, value in theirs.to_diff_dict().items()
        if key not in ("rope_parameters", "layer_types", "rms_norm_eps", "initializer_range", "tie_word_embeddings")
    }
    short |= {key: getattr(theirs, key) for key in ("model_type", "vocab_size", "max_position_embeddings")}
    for key in ("intermediate_size", "num_experts", "num_local_experts", "num_experts_per_tok"):
        if getattr(theirs, key, None) is not None:
            short[key] = getattr(theirs, key)
    if name == "dots1":
        short["moe_intermediate_size"] = theirs.moe_intermediate_size
    assert from_config(short, "here") == (sizes if name not in ("mixtral", "olmoe") else with_loss(sizes, short))


@pytest.mark.parametrize("name", CLASSES)
def test_key_value_heads_that_a_file_leaves_out_are_those_of_the_class(name):
    """Null, in the files of Mistral's first days and in OLMoE's class, means as many as heads."""
    theirs = CLASSES[name].to_dict() | {"num_attention_heads": 64, "hidden_size": 128, "head_dim": 2}
    assert from_config(theirs | {"num_key_value_heads": None}, "here").network.attention.kv_heads == 64
    del theirs["num_key_value_heads"]
    assert (
        from_config(theirs, "here").network.attention.kv_heads
        == type(CLASSES[name])(num_attention_heads=64, hidden_size=128).num_key_value_heads
    )


def with_loss(sizes: Sizes, config: dict) -> Sizes:
    """The weight of the balance loss is for training alone: left out it is 0, whatever the class's default."""
    experts = sizes.network.experts.model_copy(update={"balance_loss": config.get("router_aux_loss_coef", 0.0)})
    return sizes._replace(network=sizes.network.model_copy(update={"experts": experts}))


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_written_their_classes_take(name, tmp_path):
    sizes = from_config(CLASSES[name].to_dict(), "here")
    written = to_config(sizes)
    again = AutoConfig.for_model(**written)
    wanted = CLASSES[name].to_dict()
    for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "sliding_window", "rope_parameters", "clip_qkv"):
        if key in wanted and (name, key) != ("dots1", "sliding_window"):  # there the class's number is not used
            assert getattr(again, key) == wanted[key], key
    assert from_config(again.to_dict(), "here") == sizes
