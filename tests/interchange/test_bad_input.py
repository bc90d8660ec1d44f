"""What cannot be converted: one sentence that says what and where, and nothing left behind."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from glassbox import cli
from glassbox.errors import GlassboxError, RequestError
from glassbox.interchange import exporting, importing
from glassbox.interchange.conversion import TYPES
from glassbox.interchange.exporting import export_model
from glassbox.interchange.gguf import export_gguf
from glassbox.interchange.importing import import_model
from glassbox.model.folder import load_model
from glassbox.model.tensors import INDEX, WEIGHTS
from tests.test_cli import call

from .test_parity import NETWORKS, saved
from .theirs import CONFIGS, build, save


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return save(build(CONFIGS["mixtral"]), tmp_path / "theirs")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save(build(CONFIGS["mixtral"]), tmp_path / "theirs", max_shard_size="100KB")


def assert_refused(source: Path, *sentences: str) -> None:
    """Neither import nor direct use works, both say the same, and the folder beside holds nothing new."""
    before = sorted(os.listdir(source.parent))
    for attempt in (lambda: import_model(source, source.parent / "out"), lambda: load_model(source)):
        with pytest.raises(RequestError) as caught:
            attempt()
        message = str(caught.value)
        assert "\n" not in message
        for sentence in sentences:
            assert sentence in message, message
    assert sorted(os.listdir(source.parent)) == before


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in (config | values).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


EXPERT = "model.layers.1.block_sparse_moe.experts.2.w3.weight"


def test_a_missing_tensor(theirs):
    change_weights(theirs, lambda weights: weights.pop(EXPERT))
    assert_refused(theirs, "lacks 1 of", EXPERT)


def test_an_extra_tensor(theirs):
    change_weights(theirs, lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)}))
    assert_refused(theirs, "holds 1 tensors that the network has no place for", "q_proj.bias")


def test_a_wrong_shape(theirs):
    change_weights(theirs, lambda weights: weights.update({EXPERT: torch.zeros(48, 24)}))
    assert_refused(theirs, f"'{EXPERT}' has shape [48, 24], not [24, 48]")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite(theirs, value):
    change_weights(theirs, lambda weights: weights[EXPERT][3].fill_(value))
    assert_refused(theirs, f"'{EXPERT}' holds numbers that are not finite")


def test_a_number_too_large_for_the_type(theirs, tmp_path):
    change_weights(theirs, lambda weights: weights[EXPERT][3].fill_(1e5))
    with pytest.raises(RequestError, match="holds numbers too large for F16"):
        import_model(theirs, tmp_path / "out", "fp16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [4, 300, -1])
def test_a_truncated_file(theirs, kept):
    whole = (theirs / WEIGHTS).read_bytes()
    (theirs / WEIGHTS).write_bytes(whole[:kept])
    assert_refused(theirs, WEIGHTS, "is damaged")


@pytest.mark.parametrize(
    "about",
    [
        {},
        3,
        {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 4]},
        {"dtype": [], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
    ],
)
def test_a_header_of_odd_values(theirs, about):
    header = json.dumps({"tensor": about}).encode()
    (theirs / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert_refused(theirs, WEIGHTS)


@pytest.mark.parametrize("content", [b"\x10\0\0\0\0\0\0\0not JSON at all.", b"\2\0\0\0\0\0\0\0[]", b""])
def test_a_file_that_is_no_safetensors(theirs, content):
    (theirs / WEIGHTS).write_bytes(content)
    assert_refused(theirs, WEIGHTS, "is damaged")


def test_a_type_that_is_not_read(theirs):
    change_weights(theirs, lambda weights: weights.update({EXPERT: weights[EXPERT].to(torch.float8_e4m3fn)}))
    assert_refused(theirs, EXPERT, "F8_E4M3")


def test_only_pickles(theirs):
    (theirs / WEIGHTS).rename(theirs / "pytorch_model.bin")
    assert_refused(theirs, "only as pickles (pytorch_model.bin), which can run code")


def test_no_weights(theirs):
    (theirs / WEIGHTS).unlink()
    assert_refused(theirs, f"{WEIGHTS} is missing")


def test_a_missing_shard(sharded):
    index = json.loads((sharded / INDEX).read_text())
    shard = sorted(set(index["weight_map"].values()))[1]
    (sharded / shard).unlink()
    assert_refused(sharded, f"{shard} is missing", INDEX)


def test_an_index_that_looks_in_the_wrong_place(sharded):
    index = json.loads((sharded / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    index["weight_map"][EXPERT] = next(shard for shard in shards if shard != index["weight_map"][EXPERT])
    (sharded / INDEX).write_text(json.dumps(index))
    assert_refused(sharded, EXPERT, "does not hold it")
    for harm in ('{"weight_map": {"a": "../b.safetensors"}}', "[]", "{}", "x"):
        (sharded / INDEX).write_text(harm)
        assert_refused(sharded, INDEX, "is damaged")


def test_sharded_files_are_read_and_written(sharded, tmp_path):
    assert len(list(sharded.glob("*.safetensors"))) > 2
    import_model(sharded, tmp_path / "ours", shard_bytes=50_000)
    assert len(list((tmp_path / "ours").glob("model-*-of-*.safetensors"))) > 2
    export_model(tmp_path / "ours", tmp_path / "again", shard_bytes=50_000)
    again = json.loads((tmp_path / "again" / INDEX).read_text())
    assert set(again["weight_map"]) == set(json.loads((sharded / INDEX).read_text())["weight_map"])
    files = {name: load_file(tmp_path / "again" / name) for name in set(again["weight_map"].values())}
    assert again["metadata"]["total_size"] == sum(t.nbytes for tensors in files.values() for t in tensors.values())
    first, last = load_model(sharded).model, load_model(tmp_path / "again").model
    assert all(torch.equal(value, last.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox' is no family known here (dots1, mimo, mistral,"),
        ({"model_type": ...}, "neither a glassbox model nor one in Hugging Face's form"),
        ({"hidden_size": ...}, "has no hidden_size"),
        ({"hidden_size": "wide"}, "does not describe a model (hidden_size: Input should be a valid integer"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' cannot be done here (only 'silu' or 'swish')"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor 0.25"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        (
            {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8},
            "layers of different attention",
        ),
        ({"num_attention_heads": 5}, "does not describe a model"),
        ({"layer_types": ["full_attention"]}, "layer_types: not a list of num_hidden_layers 2 names"),
        ({"layer_types": "full_attention"}, "layer_types: not a list"),
        ({"hidden_size": True}, "hidden_size: Input should be a valid integer"),
        ({"vocab_size": 300.7}, "vocab_size: 300.7 is not a whole number of at least 1"),
        ({"vocab_size": "320"}, "vocab_size: '320' is not a whole number"),
        ({"max_position_embeddings": 0}, "max_position_embeddings: 0 is not a whole number of at least 1"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings: Input should be a valid boolean"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0 is not"),
        ({"num_hidden_layers": 10**9}, "far larger than the weights beside it"),
        ({"num_hidden_layers": 10**9, "layer_types": ...}, "far larger than the weights beside it"),
        ({"num_local_experts": 10**9}, "far larger than the weights beside it"),
        ({"hidden_size": 3 * 10**30}, "far larger than the weights beside it"),
    ],
)
def test_a_config_that_cannot_be_done(theirs, values, sentence):
    change_config(theirs, **values)
    assert_refused(theirs, "config.json", sentence)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("dots1", {"n_group": 4, "topk_group": 2}, "n_group 4 cannot be done here (only 1)"),
        ("dots1", {"scoring_func": "softmax"}, "scoring_func 'softmax'"),
        ("dots1", {"layer_types": ..., "sliding_window": 8, "max_window_layers": 1}, "layers of different attention"),
        (
            "qwen2",
            {"use_sliding_window": True, "layer_types": ..., "max_window_layers": 1, "sliding_window": 8},
            "layers",
        ),
        ("olmoe", {"attention_bias": True}, "attention_bias True"),
        ("qwen2", {"use_sliding_window": "false"}, "use_sliding_window: 'false' is neither true nor false"),
        ("qwen2", {"model_type": "mimo", "attention_bias": True, "num_nextn_predict_layers": 10**9}, "far larger"),
    ],
)
def test_a_config_of_another_family_that_cannot_be_done(name, values, sentence, tmp_path):
    folder = save(build(CONFIGS[name]), tmp_path / "theirs")
    change_config(folder, **values)
    assert_refused(folder, "config.json", sentence)


def test_a_tied_head_may_be_there_if_it_is_the_same(tmp_path):
    folder = save(build(CONFIGS["qwen2-tied"]), tmp_path / "theirs")
    change_weights(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    import_model(folder, tmp_path / "ours")
    change_weights(folder, lambda weights: weights["lm_head.weight"][7].add_(1))
    assert_refused(folder, "lm_head.weight differs from the embedding")


def test_tokenizers(theirs, tmp_path):
    whole = (theirs / "tokenizer.json").read_text()
    (theirs / "tokenizer.json").write_text(whole[:99])
    assert_refused(theirs, "tokenizer.json is not a readable tokenizer")
    (theirs / "tokenizer.json").unlink()
    assert_refused(theirs, "tokenizer.json is missing")
    (theirs / "tokenizer.model").write_bytes(b"pieces")
    assert_refused(theirs, "only as tokenizer.model", "save_pretrained")
    larger = Tokenizer.from_str(whole)
    larger.add_tokens([f"word {i}" for i in range(40)])
    larger.save(str(theirs / "tokenizer.json"))
    assert_refused(theirs, "token ids up to", "knows only 320 tokens")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"])
def test_files_beside_the_tokenizer(name, tmp_path):
    """A model without ChatML's tokens is framed by these."""
    folder = save(build(CONFIGS["mistral"]), tmp_path / "theirs")
    Tokenizer(models.BPE()).save(str(folder / "tokenizer.json"))
    for harm in (b"\xff\xfe", b"{") if name.endswith("json") else (b"\xff\xfe",):
        (folder / name).write_bytes(harm)
        with pytest.raises(RequestError, match=f"{name} is damaged: not"):
            load_model(folder)
        for export, out in ((export_model, "out"), (export_gguf, "out.gguf")):
            with pytest.raises(RequestError, match=f"{name} is damaged|can be written here for byte-level BPE"):
                export(folder, tmp_path / out)
    assert sorted(os.listdir(tmp_path)) == ["theirs"]


@pytest.mark.parametrize(
    "harm",
    [b"{", b"[]", b"{}", b'{"ids": {}}', b'{"template": "x", "ids": {"end_of_text": 0}}', b"\xff", b"[" * 100_000],
)
def test_a_damaged_chat_json(harm, tmp_path):
    saved(NETWORKS["mistral"], tmp_path / "ours")
    (tmp_path / "ours/chat.json").write_bytes(harm)
    attempts = (
        lambda: load_model(tmp_path / "ours"),
        lambda: export_model(tmp_path / "ours", tmp_path / "out"),
        lambda: export_gguf(tmp_path / "ours", tmp_path / "out.gguf"),
    )
    for attempt in attempts:
        with pytest.raises(RequestError, match=r"chat\.json is damaged"):
            attempt()
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_blocks_that_look_further_are_left_out_only_where_there_are_some(tmp_path):
    saved(NETWORKS["qwen2"], tmp_path / "ours")
    with pytest.raises(RequestError, match="no multi-token blocks to leave out: export it without --without-drafts"):
        export_model(tmp_path / "ours", tmp_path / "out", without_drafts=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"norm": "layer"}, "no norm 'layer'"),
        ({"attention": {"clip_qkv": 3.0}}, "MistralForCausalLM, which is nearest to it, has no attention.clip_qkv 3.0"),
        ({"attention": {"qk_norm": "head"}}, "no attention.qk_norm 'head'"),
        ({"multi_token": {"depth": 1}}, "no multi_token"),
    ],
)
def test_a_dense_network_that_no_family_has(changes, sentence, tmp_path):
    dump = NETWORKS["mistral"].model_dump()
    network = type(NETWORKS["mistral"])(
        **{**dump, **changes, "attention": dump["attention"] | changes.get("attention", {})}
    )
    saved(network, tmp_path / "ours")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RequestError, match="no published family has this network") as caught:
        export_model(tmp_path / "ours", tmp_path / "out")
    assert sentence in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("name", "where", "changes", "sentence"),
    [
        ("olmoe", "attention", {"window": 8}, "OlmoeForCausalLM, which is nearest to it, has no attention.window 8"),
        ("olmoe", "attention", {"head_dim": 8}, "no heads * head_dim 24 with dim 48"),
        ("mixtral", "experts", {"normalise": False}, "no experts.normalise False"),
        ("mixtral", "experts", {"score_bias": True}, "no experts.score_bias True"),
        ("mixtral", "experts", {"shared": 1}, "no experts.shared 1"),
        ("mixtral", "attention", {"bias": True}, "no attention.bias True"),
        ("dots1", "attention", {"qk_norm": None}, "no attention.qk_norm None"),
        ("dots1", "experts", {"shared": 0}, "no experts.shared 0"),
        ("dots1", "experts", {"score_bias": False}, "no experts.score_bias False"),
    ],
)
def test_a_network_of_experts_that_no_family_has(name, where, changes, sentence, tmp_path):
    dump = NETWORKS[name].model_dump()
    network = type(NETWORKS[name])(**{**dump, where: dump[where] | changes})
    saved(network, tmp_path / "ours")
    with pytest.raises(RequestError, match="no published family") as caught:
        export_model(tmp_path / "ours", tmp_path / "out")
    assert sentence in str(caught.value)


def test_the_result_must_have_a_place_of_its_own(theirs, tmp_path):
    (tmp_path / "out").mkdir()
    import_model(theirs, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RequestError, match="out exists already and is not an empty folder"):
        import_model(theirs, tmp_path / "out")
    with pytest.raises(RequestError, match="exists already"):
        export_model(tmp_path / "out", theirs)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RequestError, match="is a glassbox model already"):
        import_model(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("dtype", [None, "bf16", "fp16"])
@pytest.mark.parametrize("name", ["mistral-whole", "mixtral", "olmoe", "dots1"])
def test_a_result_with_two_tensors_swapped_is_not_kept(name, dtype, tmp_path, monkeypatch):
    """Both have the same shape, so nothing but the logits tells; whatever the type."""
    write, first, second = (
        importing.write_tensors,
        "blocks.0.feed_forward_norm.weight",
        "blocks.1.feed_forward_norm.weight",
    )

    def write_wrongly(folder, tensors, shard_bytes):
        write(folder, tensors, shard_bytes)
        change_weights(folder, lambda w: w.update({first: w[second], second: w[first]}))

    source = save(build(CONFIGS[name]), tmp_path / "theirs")
    import_model(source, tmp_path / "ours")
    monkeypatch.setattr(importing, "write_tensors", write_wrongly)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(GlassboxError, match="does not compute what the source does"):
        import_model(source, tmp_path / "out", dtype)
    monkeypatch.setattr(exporting, "write_tensors", write_wrongly)
    first, second = (f"model.layers.{n}.post_attention_layernorm.weight" for n in (0, 1))
    with pytest.raises(GlassboxError, match="does not compute what the source does"):
        export_model(tmp_path / "ours", tmp_path / "out", dtype)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_turning_to_another_type_changes_nothing_else(dtype, theirs, tmp_path):
    done = import_model(theirs, tmp_path / "ours", dtype)
    assert done.largest == 0
    after, before = load_model(tmp_path / "ours").model.state_dict(), load_model(theirs).model.state_dict()
    assert all(torch.equal(after[name], value.to(TYPES[dtype]).float()) for name, value in before.items())
    kinds = {value.dtype for value in load_file(tmp_path / "ours" / WEIGHTS).values()}
    assert kinds == {TYPES[dtype]}
    assert done.bytes * 2 == sum(value.nbytes for value in load_file(theirs / WEIGHTS).values())
    export_model(tmp_path / "ours", tmp_path / "again")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == {"bf16": "bfloat16", "fp16": "float16"}[dtype]
    save_dots = save(build(CONFIGS["dots1"]), tmp_path / "dots")
    import_model(save_dots, tmp_path / "ours-dots", dtype)
    weights = load_file(tmp_path / "ours-dots" / WEIGHTS)
    assert weights["blocks.1.feed_forward.router.bias_E"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [None, "bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_differs_in_nothing_from_what_was_to_be_written(name, dtype, tmp_path):
    saved(NETWORKS[name], tmp_path / "ours")
    assert export_model(tmp_path / "ours", tmp_path / "theirs", dtype).largest == 0


def test_by_command(theirs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "import", "theirs", "ours")
    assert (code, err) == (0, "")
    assert "mixtral" in out
    assert "none missing" in out
    code, out, _ = call(monkeypatch, capsys, "export", "ours", "again", "--dtype", "bf16", "--json")
    assert (code, json.loads(out)["family"]) == (0, "mixtral")
    assert call(monkeypatch, capsys, "export", "ours", "model.gguf", "--to", "gguf")[0] == 0
    for arguments, sentence in (
        (("import", "theirs", "ours"), "exists already"),
        (("import", "nowhere", "new"), "config.json is missing"),
        (("import", "theirs", "new", "--dtype", "int8"), "--dtype int8: can be fp32, bf16, fp16"),
        (("export", "ours", "new", "--to", "onnx"), "--to onnx: can be hf or gguf"),
        (("export", "ours", "new.gguf", "--to", "gguf", "--without-drafts"), "a GGUF file never holds multi-token"),
    ):
        code, _, err = call(monkeypatch, capsys, *arguments)
        assert (code, sentence in err.replace("\n", " ")) == (2, True), err
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(cli.models, "find_spec", lambda name: None)
    code, _, err = call(monkeypatch, capsys, "export", "ours", "other.gguf", "--to", "gguf")
    assert (code, "pip install 'glassbox-llm[gguf]'" in err) == (2, True)
