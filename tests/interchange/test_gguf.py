"""GGUF files, read back by transformers where it can and by llama.cpp where that is installed."""

import json

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM

from glassbox.errors import RequestError
from glassbox.interchange.gguf import GgufFile, export_gguf, pre_tokenizer
from glassbox.recipe.network import Attention, MultiToken, Network

from .test_parity import NETWORKS, assert_close, logits, saved, text
from .theirs import CONFIGS, build, save, small_tokenizer

GGUF = {**NETWORKS, "qwen2-ahead": NETWORKS["qwen2"].model_copy(update={"multi_token": MultiToken()})}
TEXTS = (
    "The fox: naïve, Привет, мир! 你好 1234\n\n  it's <b>",
    "<|im_end|> x",
    "cafe\u0301 \U0001f600 a  b\tWE'LL 3.14",
)


@pytest.mark.parametrize("name", GGUF)
@pytest.mark.parametrize("dtype", [None, "bf16", "fp16"])
def test_the_file_computes_what_the_model_does(name, dtype, tmp_path):
    ours = saved(GGUF[name], tmp_path / "ours")
    done = export_gguf(tmp_path / "ours", tmp_path / "model.gguf", dtype)
    found = GgufFile(tmp_path / "model.gguf")
    assert len(found.entries) == done.written
    assert done.largest == 0
    kept = [
        entry.dtype for name, entry in found.entries.items() if "norm" in name or "gate_inp" in name or "b." in name
    ]
    assert set(kept) == {torch.float32}
    assert found.entries["token_embd.weight"].dtype == {None: torch.float32, "bf16": torch.bfloat16}.get(
        dtype, torch.float16
    )
    assert torch.equal(
        found.read("token_embd.weight").float(),
        ours.embedding.weight.to(found.entries["token_embd.weight"].dtype).float(),
    )
    assert ("window" in str(done.warnings)) == (GGUF[name].attention.window is not None)
    assert ("ahead" in str(done.warnings)) == ("ahead" in name)


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_transformers_reads_it(name, tmp_path):
    network = NETWORKS[name].model_copy(
        update={"attention": NETWORKS[name].attention.model_copy(update={"window": None})}
    )
    ours = saved(network, tmp_path / "ours")
    export_gguf(tmp_path / "ours", tmp_path / "model.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    assert_close(logits(ours, text(2, 19)), theirs(text(2, 19)).logits, 1e-5, "logits")


@pytest.mark.parametrize("name", GGUF)
def test_llama_cpp_reads_it(name, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    ours = saved(GGUF[name], tmp_path / "ours")
    export_gguf(tmp_path / "ours", tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
    )
    ids = text(1, GGUF[name].attention.window or 60)
    theirs.eval(ids[0].tolist())
    assert_close(logits(ours, ids)[0], torch.tensor(np.array(theirs.scores[: ids.shape[1]])), 1e-5, "logits")
    for said in TEXTS:
        assert theirs.tokenize(said.encode(), add_bos=False, special=False) == small_tokenizer().encode(said).ids


def test_a_tied_embedding_is_written_where_llama_cpp_wants_a_head(tmp_path):
    network = NETWORKS["olmoe"].model_copy(update={"tie_embeddings": True})
    saved(network, tmp_path / "ours")
    export_gguf(tmp_path / "ours", tmp_path / "model.gguf")
    found = GgufFile(tmp_path / "model.gguf")
    assert torch.equal(found.read("output.weight"), found.read("token_embd.weight"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention": Attention(heads=3, kv_heads=1, qk_norm="whole")}, "no attention.kv_heads 1 with heads 3"),
        ({"attention": Attention(heads=3, kv_heads=3, qk_norm="whole", clip_qkv=2.0)}, "no attention.clip_qkv 2.0"),
        ({"norm": "layer"}, "no norm 'layer'"),
    ],
)
def test_what_llama_cpp_has_not_is_refused(changes, sentence, tmp_path):
    saved(Network(**{**dict(NETWORKS["olmoe"]), **changes}), tmp_path / "ours")
    with pytest.raises(RequestError, match=sentence):
        export_gguf(tmp_path / "ours", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_the_file_must_be_new_and_named_so(tmp_path):
    saved(NETWORKS["mistral"], tmp_path / "ours")
    (tmp_path / "there.gguf").write_text("mine")
    for name in ("there.gguf", "folder"):
        with pytest.raises(RequestError, match="new file that ends in"):
            export_gguf(tmp_path / "ours", tmp_path / name)
    assert (tmp_path / "there.gguf").read_text() == "mine"


def test_tokenizers_that_llama_cpp_would_cut_otherwise_are_refused():
    def about(tokenizer: Tokenizer) -> dict:
        return json.loads(tokenizer.to_str())

    assert pre_tokenizer(about(small_tokenizer()), "here") == "qwen2"
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert pre_tokenizer(about(plain), "here") == "gpt-2"
    pieces = Tokenizer(models.BPE(byte_fallback=True))
    pieces.normalizer = normalizers.Prepend("▁")
    plain.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    for tokenizer in (pieces, plain):
        with pytest.raises(RequestError, match="convert_hf_to_gguf"):
            pre_tokenizer(about(tokenizer), "here")


def test_the_special_tokens_of_a_foreign_model(tmp_path, caplog):
    folder = save(build(CONFIGS["mistral"]), tmp_path / "theirs")
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": {"content": "<unk>"}}
    for begins in (True, False):
        (folder / "tokenizer_config.json").write_text(json.dumps({**about, "add_bos_token": begins}))
        export_gguf(folder, tmp_path / f"{begins}.gguf")
        fields = gguf.GGUFReader(tmp_path / f"{begins}.gguf").fields
        names = {"bos_token_id": 1, "eos_token_id": 2, "padding_token_id": 3, "unknown_token_id": 4}
        for name, value in (names | {"add_bos_token": begins}).items():
            assert fields[f"tokenizer.ggml.{name}"].contents() == value, name
    assert not caplog.records
