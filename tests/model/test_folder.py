"""Saving and loading: nothing changes, and a damaged folder is named in one sentence."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models

from glassbox.errors import RequestError
from glassbox.model.families import Sizes
from glassbox.model.folder import load_model, save_model
from glassbox.model.tensors import InMemory, write_tensors
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.tokens.chat import chat_format
from glassbox.tokens.tokenizer import SPECIAL_TOKENS

NETWORK = Network(
    dim=16, layers=2, attention=Attention(heads=2, kv_heads=1), experts=Experts(count=3, top_k=1, hidden=8)
)


@pytest.fixture
def saved(tmp_path):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    tokens = Tokenizer(models.BPE())
    tokens.add_special_tokens(list(SPECIAL_TOKENS))
    tokens.save(str(tokenizer / "tokenizer.json"))
    (tokenizer / "chat.json").write_text(json.dumps(chat_format(tokens)))
    model = Transformer(NETWORK, 40)
    model.init_weights(0)
    save_model(tmp_path / "model", InMemory(model.state_dict()), Sizes(NETWORK, 40, 128), tokenizer)
    return model, tmp_path / "model", tokenizer


def test_round_trip_and_overwriting(saved):
    model, folder, tokenizer = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_model(folder, InMemory(model.state_dict()), Sizes(NETWORK, 40, 128), tokenizer)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = load_model(folder)
    assert (loaded.network, loaded.vocab_size, loaded.context) == (NETWORK, 40, 128)
    ids = torch.arange(9)[None]
    assert torch.equal(loaded.model(ids).hidden_BTD, model(ids).hidden_BTD)


def test_matrices_turn_to_bf16_once_and_routers_stay(saved):
    _, folder, _ = saved
    model = load_model(folder, dtype=torch.bfloat16).model
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    assert kinds["blocks.0.feed_forward.gate_up_EDH"] == kinds["embedding.weight"] == torch.bfloat16
    assert kinds["blocks.0.feed_forward.router.weight"] == kinds["norm.weight"] == torch.float32
    assert model(torch.arange(9)[None]).hidden_BTD.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("harm", ["missing", "cut", "nonsense"])
def test_a_damaged_folder_is_one_sentence(saved, name, harm):
    _, folder, _ = saved
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"[1, 2]")
    with pytest.raises(RequestError, match=name) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(saved):
    _, folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config["network"]["layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="another network"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": NETWORK.model_dump() | {"layers": "two"}}, r"\(layers: Input should be a valid integer\)"),
        ({"network": NETWORK.model_dump() | {"wide": 3}}, r"\(wide: Extra inputs are not permitted\)"),
        ({"network": NETWORK.model_dump() | {"hidden": 8}}, r"\(give either `hidden`"),
        ({"network": 5}, "does not describe a glassbox model"),
        ({"vocab_size": 40.5}, r"\(vocab_size: 40.5 is not a whole number of at least 1\)"),
        ({"context": None}, r"\(context: None is not a whole number of at least 1\)"),
        ({"network": NETWORK.model_dump() | {"layers": 10**9}}, "far larger than the weights beside it"),
        ({"vocab_size": 10**30}, "far larger than the weights beside it"),
    ],
)
def test_a_damaged_config_says_which_setting_and_why(saved, changes, sentence):
    _, folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(RequestError, match=sentence):
        load_model(folder)


def test_weights_that_are_not_finite_are_refused(saved):
    model, folder, _ = saved
    with torch.no_grad():
        model.blocks[1].attention.out.weight[3, 4] = float("nan")
    write_tensors(folder, InMemory(model.state_dict()))
    with pytest.raises(RequestError, match=r"'blocks.1.attention.out.weight' holds numbers that are not finite"):
        load_model(folder)
