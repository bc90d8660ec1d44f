"""Our networks as transformers models: the same sizes, the same weights."""

import torch
from transformers import MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from glassbox.model.transformer import Transformer


def peer(model: Transformer) -> PreTrainedModel:
    """The same network and weights as a transformers model."""
    network, attention = model.network, model.network.attention
    common = {
        "vocab_size": model.vocab_size,
        "hidden_size": network.dim,
        "num_hidden_layers": network.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": network.head_dim,
        "sliding_window": attention.window,
        "rms_norm_eps": network.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rope_base},
        "tie_word_embeddings": network.tie_embeddings,
        "attn_implementation": "eager",
    }
    if network.experts is None:
        theirs = MistralForCausalLM(MistralConfig(**common, intermediate_size=network.hidden))
    else:
        experts = network.experts
        sizes = {
            "num_local_experts": experts.count,
            "num_experts_per_tok": experts.top_k,
            "intermediate_size": experts.hidden,
        }
        theirs = MixtralForCausalLM(MixtralConfig(**common, **sizes))
    theirs.load_state_dict(
        {name: tensor.detach().clone() for name, tensor in translated(model, "data").items()}, strict=False
    )
    return theirs.eval()


def translated(model: Transformer, what: str) -> dict[str, torch.Tensor]:
    """Our weights (`data`) or gradients (`grad`) under transformers' names."""
    attention, d = model.network.attention, model.network.head_dim
    found = {
        "model.embed_tokens.weight": getattr(model.embedding.weight, what),
        "model.norm.weight": getattr(model.norm.weight, what),
    }
    head = model.embedding if model.head is None else model.head
    found["lm_head.weight"] = getattr(head.weight, what)
    for i, block in enumerate(model.blocks):
        at = f"model.layers.{i}."
        sizes = (attention.heads * d, attention.kv_heads * d, attention.kv_heads * d)
        for letter, part in zip("qkv", getattr(block.attention.qkv.weight, what).split(sizes), strict=True):
            found[f"{at}self_attn.{letter}_proj.weight"] = part
        found[at + "self_attn.o_proj.weight"] = getattr(block.attention.out.weight, what)
        found[at + "input_layernorm.weight"] = getattr(block.attention_norm.weight, what)
        found[at + "post_attention_layernorm.weight"] = getattr(block.feed_forward_norm.weight, what)
        inner = block.feed_forward
        if model.network.experts is None:
            gate, up = getattr(inner.gate_up.weight, what).chunk(2)
            found |= {at + "mlp.gate_proj.weight": gate, at + "mlp.up_proj.weight": up}
            found[at + "mlp.down_proj.weight"] = getattr(inner.down.weight, what)
        else:
            found[at + "mlp.gate.weight"] = getattr(inner.router.weight, what)
            found[at + "mlp.experts.gate_up_proj"] = getattr(inner.gate_up_EDH, what).transpose(1, 2)
            found[at + "mlp.experts.down_proj"] = getattr(inner.down_EHD, what).transpose(1, 2)
    return found
