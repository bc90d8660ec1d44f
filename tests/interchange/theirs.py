"""Models of transformers' own classes with random weights, as folders."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Dots1Config,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from glassbox.tokens.tokenizer import train_tokenizer

V = 320
SIZES = {
    "vocab_size": V,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
THREE = {**SIZES, "hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1}
FIVE = {**SIZES, "hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5}
WIDE = {**SIZES, "hidden_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
EXPERTS = {"intermediate_size": 24, "num_experts_per_tok": 3}
DOTS = {
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": 12,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "mistral": MistralConfig(**THREE, intermediate_size=40, sliding_window=7),
    "mistral-wide": MistralConfig(**WIDE, intermediate_size=40, sliding_window=63, tie_word_embeddings=True),
    "mistral-whole": MistralConfig(**FIVE, intermediate_size=40, sliding_window=None),
    "mixtral": MixtralConfig(**THREE, **EXPERTS, num_local_experts=5),
    "mixtral-wide": MixtralConfig(**WIDE, **EXPERTS, num_local_experts=12, sliding_window=7),
    "olmoe": OlmoeConfig(**FIVE, **EXPERTS, num_experts=12),
    "olmoe-clipped": OlmoeConfig(**THREE, **EXPERTS, num_experts=5, clip_qkv=0.8, norm_topk_prob=True),
    "dots1": Dots1Config(**THREE, **DOTS),
    "dots1-wide": Dots1Config(**WIDE, **{**DOTS, "first_k_dense_replace": 0, "norm_topk_prob": False}),
    "qwen2": Qwen2Config(**THREE, intermediate_size=40),
    "qwen2-tied": Qwen2Config(
        **WIDE,
        intermediate_size=40,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=0,
    ),
}


@cache
def small_tokenizer() -> Tokenizer:
    """A tokenizer of ours with its three special tokens."""
    return train_tokenizer(["The fox jumps over it. 12 + 34 = 46\n" * 5, "Привет, мир! 你好\n" * 5], 300)


@torch.no_grad()
def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """Every weight, gains, biases and routers' biases too, random and large enough for differences to show."""
    generator = torch.Generator().manual_seed(7)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if "inv_freq" not in name:
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(0.2 * noise if value.dim() > 1 else value + 0.1 * noise)
    return model.eval()


def build(config: PreTrainedConfig) -> PreTrainedModel:
    return shaken(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


def save(model: PreTrainedModel, folder: Path, **how) -> Path:
    """The model's folder, with a tokenizer."""
    model.save_pretrained(folder, **how)
    small_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
