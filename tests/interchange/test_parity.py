"""Every family both ways against transformers' own classes: logits to 1e-5, every gradient to 1e-4, relative."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from glassbox.interchange.exporting import export_model
from glassbox.interchange.importing import import_model
from glassbox.model.families import Sizes
from glassbox.model.folder import load_model, save_model
from glassbox.model.tensors import InMemory
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.tokens.chat import chat_format, encode_chat

from ..model.peers import translated
from .theirs import CONFIGS, THREE, V, build, save, shaken, small_tokenizer


def logits(model: Transformer, ids_BT: torch.Tensor) -> torch.Tensor:
    return model(ids_BT).hidden_BTD @ model.head_VD.T


def text(*shape: int) -> torch.Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_close(ours: torch.Tensor, theirs: torch.Tensor, share: float, what: str, floor: float = 0.0) -> None:
    assert ours.shape == theirs.shape, what
    largest = float((ours - theirs).abs().max())
    assert largest <= share * float(theirs.abs().max()) + floor, f"{what}: {largest} of {theirs.abs().max()}"


def assert_same(ours: Transformer, theirs: PreTrainedModel, ids_BT: torch.Tensor) -> None:
    """Logits and the gradient of every parameter."""
    mine, others = logits(ours, ids_BT), theirs(ids_BT).logits
    assert_close(mine, others, 1e-5, "logits")
    weight = torch.randn(mine.shape, generator=torch.Generator().manual_seed(2))
    for model, scores in ((ours, mine), (theirs, others)):
        model.zero_grad()
        (scores * weight).sum().backward()
    assert_same_gradients(ours, theirs)


def assert_same_gradients(ours: Transformer, theirs: PreTrainedModel) -> None:
    gradients = translated(ours, "grad")
    # what is zero but for rounding (queries of a single token) is held against the gradients of the rest
    floor = 1e-6 * max(float(parameter.grad.abs().max()) for parameter in theirs.parameters())
    for name, parameter in theirs.named_parameters():
        assert_close(gradients[name], parameter.grad, 1e-4, name, floor)


@pytest.mark.parametrize("name", CONFIGS)
def test_theirs_imported_and_exported_again(name, tmp_path):
    theirs = build(CONFIGS[name])
    save(theirs, tmp_path / "theirs")
    done = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert done.family == name.split("-")[0]
    assert done.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert done.largest == 0
    ours = load_model(tmp_path / "ours").model
    for ids_BT in (text(2, 19), text(1, 1)):
        assert_same(ours, theirs, ids_BT)
    direct = load_model(tmp_path / "theirs").model
    assert torch.equal(logits(direct, text(2, 9)), logits(ours, text(2, 9)))
    done = export_model(tmp_path / "ours", tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", attn_implementation="eager")
    assert type(again) is type(theirs)
    assert torch.equal(again(text(2, 19)).logits, theirs(text(2, 19)).logits)
    written, before = load_file(tmp_path / "again/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    assert written.keys() == before.keys()
    assert all(torch.equal(written[tensor], before[tensor]) for tensor in before)
    config = json.loads((tmp_path / "again/config.json").read_text())
    for key, value in json.loads((tmp_path / "theirs/config.json").read_text()).items():
        unused = {"transformers_version", "eos_token_id", *UNUSED.get(name, ())}
        assert value is None or key in unused or config[key] == value, key


UNUSED = {
    "dots1": ("sliding_window", "max_window_layers"),
    "dots1-wide": ("sliding_window", "max_window_layers", "intermediate_size"),
    "qwen2": ("max_window_layers",),
}
"""What a class carries along where its layers have no window or are all of experts."""


NETWORKS = {
    "mistral": Network(dim=48, layers=2, hidden=40, attention=Attention(heads=3, kv_heads=1, window=7)),
    "mistral-mup": Network(dim=40, layers=2, hidden=24, attention=Attention(heads=5, kv_heads=5), mup_base=16),
    "mixtral": Network(
        dim=40,
        layers=2,
        attention=Attention(heads=4, kv_heads=2, head_dim=16),
        experts=Experts(count=9, top_k=2, hidden=24, normalise=True),
        tie_embeddings=True,
    ),
    "olmoe": Network(
        dim=48,
        layers=2,
        attention=Attention(heads=3, kv_heads=3, qk_norm="whole"),
        experts=Experts(count=9, top_k=4, hidden=24),
    ),
    "dots1": Network(
        dim=40,
        layers=3,
        hidden=56,
        attention=Attention(heads=5, kv_heads=5, qk_norm="head", window=9),
        experts=Experts(
            count=9,
            top_k=4,
            hidden=24,
            shared=1,
            first_dense=1,
            score="sigmoid",
            score_bias=True,
            normalise=True,
            scale=2.5,
        ),
    ),
    "qwen2": Network(dim=48, layers=2, hidden=40, attention=Attention(heads=3, kv_heads=1, bias=True)),
}


def saved(network: Network, folder: Path, vocab_size: int = V) -> Transformer:
    """A model of ours with random weights, and its folder with a tokenizer."""
    tokens = folder.parent / "tokenizer"
    tokens.mkdir(exist_ok=True)
    small_tokenizer().save(str(tokens / "tokenizer.json"))
    (tokens / "chat.json").write_text(json.dumps(chat_format(small_tokenizer())))
    model = Transformer(network, vocab_size)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.state_dict().values():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(0.2 * noise if value.dim() > 1 else value + 0.1 * noise)
    save_model(folder, InMemory(model.state_dict()), Sizes(network, vocab_size, 64), tokens)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_ours_exported(name, tmp_path):
    ours = saved(NETWORKS[name], tmp_path / "ours")
    done = export_model(tmp_path / "ours", tmp_path / "theirs")
    assert done.family == name.split("-")[0]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", attn_implementation="eager")
    if "mup" not in name:  # with muP the same function, but other gains and so other gradients
        assert_same(ours, theirs, text(2, 19))
    assert_close(logits(ours, text(2, 19)), theirs(text(2, 19)).logits, 1e-5, "logits")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    said = "The fox: naïve, Привет, мир! 你好 1234\n\n  it's <b>"
    assert tokenizer(said).input_ids == small_tokenizer().encode(said).ids
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": "No."}]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert ids == encode_chat(small_tokenizer(), messages)[0]
    ends = theirs.generation_config.eos_token_id
    assert [tokenizer.convert_ids_to_tokens(i) for i in ends] == ["<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize("name", ["mistral", "mixtral", "dots1", "olmoe", "qwen2"])
def test_a_ragged_batch_equals_its_rows_alone(name, tmp_path):
    """Three rows of 11, 1 and 19 tokens, padded on both sides: logits of real tokens, gradients, each row alone."""
    theirs = build(CONFIGS[name])
    ours = load_model(save(theirs, tmp_path)).model
    lengths, ids_BT = (11, 1, 19), text(3, 19)
    real_BT = torch.arange(19)[None] < torch.tensor(lengths)[:, None]
    mine = ours(ids_BT, documents_BT=torch.where(real_BT, 0, -1)).hidden_BTD @ ours.head_VD.T
    others = theirs(ids_BT, attention_mask=real_BT.long()).logits
    assert_close(mine[real_BT], others[real_BT], 1e-5, "logits")
    for row, length in enumerate(lengths):
        assert_close(logits(ours, ids_BT[row : row + 1, :length])[0], others[row, :length], 1e-5, f"row {row}")
    weight_NV = torch.randn(mine[real_BT].shape, generator=torch.Generator().manual_seed(2))
    for scores in (mine, others):
        (scores[real_BT] * weight_NV).sum().backward()
    assert_same_gradients(ours, theirs)


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "dots1"])
def test_ties_and_experts_that_nobody_chooses(name, tmp_path):
    theirs = build(CONFIGS[name])
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if key.endswith("mlp.gate.weight") and ".1." in key:
                value.zero_()  # every expert ties
            elif key.endswith("mlp.gate.weight"):
                value[1:] = 0  # all but the first
            elif key.endswith("e_score_correction_bias"):
                value.zero_()
    ours = load_model(save(theirs, tmp_path)).model
    assert_same(ours, theirs, text(2, 19))
    assert (ours(text(2, 19)).load_LE == 0).any()


def test_mimo_is_qwen2_and_blocks_that_look_further(tmp_path):
    """The file's multi-token block, computed by the formula with transformers' own layer; and back."""
    config = Qwen2Config(**THREE, intermediate_size=40)
    trunk = build(config)
    layer = shaken(Qwen2DecoderLayer(config, 0))
    draw = torch.Generator().manual_seed(5)
    extra = {f"model.mtp_layers.0.{name}": value for name, value in layer.state_dict().items()}
    for norm in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
        extra[f"model.mtp_layers.0.{norm}.weight"] = torch.rand(48, generator=draw) + 0.5
    extra["model.mtp_layers.0.input_proj.weight"] = torch.randn(48, 96, generator=draw) * 0.2
    save(trunk, tmp_path / "theirs")
    weights = load_file(tmp_path / "theirs/model.safetensors")
    save_file({**weights, **extra}, tmp_path / "theirs/model.safetensors", {"format": "pt"})
    about = json.loads((tmp_path / "theirs/config.json").read_text())
    about |= {"model_type": "mimo", "architectures": ["MiMoForCausalLM"], "num_nextn_predict_layers": 1}
    about |= {"attention_bias": True, "rope_theta": 10_000.0}
    del about["rope_parameters"], about["layer_types"]
    (tmp_path / "theirs/config.json").write_text(json.dumps(about))
    done = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert (done.family, done.read) == ("mimo", len(weights) + 16)

    ours = load_model(tmp_path / "ours").model
    ids_BT = text(2, 19)
    output = ours(ids_BT, drafts=True)
    with torch.no_grad():
        assert_close(output.hidden_BTD @ ours.head_VD.T, trunk(ids_BT).logits, 1e-5, "logits")
        taken = {}
        trunk.model.norm.register_forward_pre_hook(lambda module, args: taken.update(state=args[0]))
        trunk(ids_BT)

        def normed(x, name):
            return F.rms_norm(x, (48,), extra[f"model.mtp_layers.0.{name}.weight"], 1e-5)

        ahead = trunk.model.embed_tokens(ids_BT[:, 1:])
        both = torch.cat((normed(taken["state"][:, :-1], "hidden_layernorm"), normed(ahead, "token_layernorm")), -1)
        u = both @ extra["model.mtp_layers.0.input_proj.weight"].T
        positions = torch.arange(18)[None]
        mask = torch.full((18, 18), float("-inf")).triu(1)[None, None]
        turned = trunk.model.rotary_emb(u, positions)
        v = layer(u, attention_mask=mask, position_embeddings=turned, position_ids=positions)
        expected = normed(v if isinstance(v, torch.Tensor) else v[0], "final_layernorm") @ trunk.lm_head.weight.T
        assert_close(output.drafts[0][:, :-1] @ ours.head_VD.T, expected, 1e-5, "drafts")

    export_model(tmp_path / "ours", tmp_path / "again")
    card = (tmp_path / "again/README.md").read_text()
    assert "--without-drafts" in card
    assert "transformers" not in card.replace("transformers has no class for MiMo", "")
    assert "AutoModel" not in card
    again = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in {**weights, **extra}.items())
    assert json.loads((tmp_path / "again/config.json").read_text())["num_nextn_predict_layers"] == 1
    done = export_model(tmp_path / "ours", tmp_path / "qwen2", without_drafts=True)
    assert (done.family, done.written) == ("qwen2", len(weights))
    assert "library_name: transformers" in (tmp_path / "qwen2/README.md").read_text()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen2", attn_implementation="eager")
    assert torch.equal(plain(ids_BT).logits, trunk(ids_BT).logits)


def test_ours_with_multi_token_blocks_there_and_back(tmp_path):
    network = NETWORKS["qwen2"].model_copy(update={"multi_token": MultiToken(depth=2), "mup_base": 12})
    ours = saved(network, tmp_path / "ours")
    assert export_model(tmp_path / "ours", tmp_path / "theirs").family == "mimo"
    again = load_model(tmp_path / "theirs").model
    before, after = ours(text(2, 19), drafts=True), again(text(2, 19), drafts=True)
    for mine, others in zip((before.hidden_BTD, *before.drafts), (after.hidden_BTD, *after.drafts), strict=True):
        assert_close(mine, others, 1e-5, "hidden")
