"""Speed of a training step against a plain transformers loop: the same mixture of experts, data and optimizer.

    python benchmarks/train_step.py [--json]

Both run in turns in this process on one thread; the best of several rounds counts, in CPU seconds. The peer is
`MixtralForCausalLM` with its own router loss, cross-entropy and AdamW as torch sets it up by default.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
import transformers

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.training import Optimizer
from glassbox.train.loop import accumulate
from glassbox.train.losses import next_token
from glassbox.train.optimizer import build_adamw
from glassbox.train.rows import labelled_tokens, to_rows

VOCABULARY, ROWS, MICRO_ROWS, CONTEXT = 4096, 32, 8, 256
NETWORK = Network(
    dim=192,
    layers=6,
    attention=Attention(heads=6, kv_heads=2),
    experts=Experts(count=8, top_k=2, hidden=192, normalise=True),
)


def glassbox_step(dtype: torch.dtype) -> Callable[[torch.Tensor], None]:
    model = Transformer(NETWORK, VOCABULARY)
    model.init_weights(0)
    model.compute_dtype = dtype
    adamw = build_adamw(model, Optimizer(lr=1e-3))

    def step(ids: torch.Tensor) -> None:
        rows = to_rows({"ids": ids, "labels": ids})
        accumulate(model, rows, next_token, labelled_tokens(rows), MICRO_ROWS)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def transformers_step(dtype: torch.dtype) -> Callable[[torch.Tensor], None]:
    model = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=VOCABULARY,
            hidden_size=NETWORK.dim,
            intermediate_size=NETWORK.experts.hidden,
            num_hidden_layers=NETWORK.layers,
            num_attention_heads=NETWORK.attention.heads,
            num_key_value_heads=NETWORK.attention.kv_heads,
            num_local_experts=NETWORK.experts.count,
            num_experts_per_tok=NETWORK.experts.top_k,
            output_router_logits=True,
            use_cache=False,
        )
    )
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids: torch.Tensor) -> None:
        for micro in ids.split(MICRO_ROWS):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = model(input_ids=micro, labels=micro).loss
            (loss * len(micro) / len(ids)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    parser.add_argument("--rounds", type=int, default=4, help="timed rounds of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    ids = torch.randint(0, VOCABULARY, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        steps = {"glassbox": glassbox_step(dtype), "transformers": transformers_step(dtype)}
        best = dict.fromkeys(steps, float("inf"))
        for round_number in range(arguments.rounds + 1):
            for name, step in steps.items():
                start = time.process_time()
                step(ids)
                if round_number:  # the first warms up
                    best[name] = min(best[name], time.process_time() - start)
        rates = {name: ids.numel() / seconds for name, seconds in best.items()}
        row = {
            "precision": str(dtype).removeprefix("torch."),
            "glassbox_tokens_per_cpu_second": round(rates["glassbox"]),
            "transformers_tokens_per_cpu_second": round(rates["transformers"]),
            "ratio": round(rates["glassbox"] / rates["transformers"], 2),
        }
        if arguments.json:
            print(json.dumps(row))
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
