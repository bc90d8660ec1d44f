"""Attention against transformers' own classes and the dense-mask reference."""

import pytest
import torch
import torch._dynamo.testing
from transformers import Dots1Config, OlmoeConfig, Qwen2Config
from transformers.models.dots1.modeling_dots1 import Dots1Attention
from transformers.models.olmoe.modeling_olmoe import OlmoeAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from glassbox.model.attention import Attention, share
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention as Settings
from glassbox.recipe.network import Network

FAMILIES = {
    "OLMoE": (OlmoeAttention, OlmoeConfig, {}, {"qk_norm": "whole"}),
    "OLMoE clipped": (OlmoeAttention, OlmoeConfig, {"clip_qkv": 0.7}, {"qk_norm": "whole", "clip_qkv": 0.7}),
    "dots.llm1": (Dots1Attention, Dots1Config, {"sliding_window": None, "layer_types": None}, {"qk_norm": "head"}),
    "Qwen2": (Qwen2Attention, Qwen2Config, {}, {"bias": True}),
}


def attention(seed=0, **settings) -> Attention:
    network = Network(dim=24, layers=1, hidden=8, norm_eps=1e-4, attention=Settings(heads=6, kv_heads=3, **settings))
    torch.manual_seed(seed)
    ours = Attention(network, 0)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.normal_(std=0.4)
    ours.network = network
    return ours


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("T", [1, 11])
def test_equals_transformers_attention(family, T):
    cls, config_cls, theirs_settings, ours_settings = FAMILIES[family]
    ours = attention(**ours_settings)
    config = config_cls(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=4,
        rms_norm_eps=1e-4,
        attn_implementation="eager",
        **theirs_settings,
    )
    theirs = cls(config, layer_idx=0)
    state = {"o_proj.weight": ours.out.weight}
    for what, tensor in ours.qkv.named_parameters():
        for letter, part in zip("qkv", tensor.split((24, 12, 12)), strict=True):
            state[f"{letter}_proj.{what}"] = part
    if ours.q_norm is not None:
        state |= {"q_norm.weight": ours.q_norm.weight, "k_norm.weight": ours.k_norm.weight}
    theirs.load_state_dict({name: tensor.detach().clone() for name, tensor in state.items()})

    x_BTD = torch.randn(2, T, 24)
    shared = share(ours.network, torch.zeros(2, T, dtype=torch.long), None, None, None, torch.float32)
    cos, sin = (torch.cat((part, part), -1).squeeze(2) for part in (shared.cos, shared.sin))
    hidden = torch.full((T, T), float("-inf")).triu(1)[None, None]
    mine, (others, _) = ours(x_BTD, shared, None), theirs(x_BTD, (cos, sin), hidden)
    torch.testing.assert_close(mine, others, atol=1e-5, rtol=1e-5)

    probe = torch.randn(mine.shape)
    (mine * probe).sum().backward()
    (others * probe).sum().backward()
    gradients = dict(theirs.named_parameters())
    for name, tensor in ours.named_parameters():
        if name.startswith("qkv"):
            expected = torch.cat([gradients[f"{letter}_proj.{name[4:]}"].grad for letter in "qkv"])
        else:
            expected = gradients[name.replace("out", "o_proj")].grad
        torch.testing.assert_close(tensor.grad, expected, atol=1e-4, rtol=1e-4)


def test_a_block_compiles_whole_and_other_documents_need_no_other_graph():
    network = Network(
        dim=16, layers=1, hidden=8, attention=Settings(heads=4, kv_heads=2, window=20, qk_norm="head", bias=True)
    )
    model = Transformer(network, 50)
    model.init_weights(0)
    ids_BT = torch.randint(50, (2, 90))
    batches = [(torch.rand(2, 90) < chance).cumsum(1) for chance in (0.01, 0.1, 0.5)]

    def run(documents_BT):
        model.zero_grad()
        hidden_BTD = model(ids_BT, None, documents_BT).hidden_BTD
        hidden_BTD.square().sum().backward()
        return [hidden_BTD.detach(), *(weight.grad.clone() for weight in model.blocks.parameters())]

    expected = [run(documents_BT) for documents_BT in batches]
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model.blocks[0].compile(fullgraph=True, backend=graphs)
    for documents_BT, before in zip(batches, expected, strict=True):
        for mine, other in zip(run(documents_BT), before, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)
    assert graphs.frame_count == 1
