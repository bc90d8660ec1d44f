"""The stage import: takes a folder that is what the recipe says, names the first thing that is not."""

import json
from pathlib import Path

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from glassbox.errors import RequestError
from glassbox.interchange.stage import run
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.model.folder import load_model
from glassbox.recipe.files import raw_files
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.training import ImportStage
from glassbox.tokens.tokenizer import train_tokenizer
from tests.tiny import tiny_problems

VOCABULARY = 300
NETWORK = Network(
    dim=32,
    layers=2,
    attention=Attention(heads=4, kv_heads=2, rope_base=1_000_000.0),
    experts=Experts(count=4, top_k=2, hidden=48, normalise=True, balance_loss=0.02, z_loss=0.0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint as transformers writes it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=128,
        rope_theta=1_000_000.0,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer = train_tokenizer([problem.solution for problem in tiny_problems(60)], VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def stage(folder: Path, network: Network = NETWORK, **settings) -> ImportStage:
    return ImportStage(
        kind="import", path=str(folder), **({"model": network, "vocab_size": VOCABULARY, "context": 64} | settings)
    )


def test_the_model_is_the_recipes_with_the_checkpoints_weights(folder, tmp_path):
    for _ in range(2):  # a second try finds what a killed one left
        run(stage(folder), Inputs(), Workspace(tmp_path))
    loaded = load_model(tmp_path / "model")
    assert loaded.network == NETWORK
    assert loaded.context == 64
    ids = torch.arange(24).view(2, 12)
    theirs = MixtralForCausalLM.from_pretrained(folder)(ids).logits
    torch.testing.assert_close(loaded.model(ids).hidden_BTD @ loaded.model.head_VD.T, theirs, atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "import.json").read_text())["family"] == "mixtral"


@pytest.mark.parametrize(
    ("network", "settings", "words"),
    [
        (
            NETWORK.model_copy(update={"attention": Attention(heads=4, kv_heads=2)}),
            {},
            r"model.attention.rope_base is 1000000.0, the recipe's is 10000.0",
        ),
        (NETWORK.model_copy(update={"layers": 3}), {}, "model.layers is 2"),
        (NETWORK, {"vocab_size": 301}, "vocab_size is 300, the recipe's is 301"),
        (NETWORK, {"context": 256}, "context is 128, the recipe's is 256"),
    ],
)
def test_another_network_is_refused_by_name(folder, tmp_path, network, settings, words):
    with pytest.raises(RequestError, match=words):
        run(stage(folder, network, **settings), Inputs(), Workspace(tmp_path))
    assert not list(tmp_path.iterdir())


def test_every_file_of_the_folder_enters_the_record(folder, tmp_path):
    assert {path.name for path in raw_files(stage(folder))} >= {"config.json", "tokenizer.json", "model.safetensors"}
    with pytest.raises(RequestError, match="does not exist; set the import stage's path"):
        raw_files(stage(tmp_path / "absent"))
    with pytest.raises(RequestError, match=r"holds no config.json"):
        raw_files(stage(tmp_path))
