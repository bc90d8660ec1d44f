"""Decoding speed against transformers' `generate`: the same sizes, random weights, greedy, fp32, one thread, one run.

    python benchmarks/decode.py            a table
    python benchmarks/decode.py --json     one JSON line per row
    python benchmarks/decode.py --ring     a window's ring against a cache of all columns, far into a text

Tokens per CPU second of everything after the prompts are read, all sequences together; the two engines take turns and
the better of their rounds counts, because a shared machine only ever makes a round slower.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from transformers import MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from glassbox.generate.engine import Engine, Request
from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network

VOCAB, PROMPT, NEW = 4096, 64, 64
WINDOW, FAR = 512, 8192
ATTENTION = Attention(heads=6, kv_heads=2)
NETWORKS = {
    "dense": Network(dim=192, layers=6, attention=ATTENTION, hidden=512),
    "mixture": Network(
        dim=192, layers=6, attention=ATTENTION, experts=Experts(count=8, top_k=2, hidden=256, normalise=True)
    ),
}


def peer(network: Network) -> PreTrainedModel:
    """A transformers model of the same sizes."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": network.dim,
        "num_hidden_layers": network.layers,
        "num_attention_heads": network.attention.heads,
        "num_key_value_heads": network.attention.kv_heads,
        "sliding_window": None,
        "max_position_embeddings": 1024,
    }
    if network.experts is None:
        return MistralForCausalLM(MistralConfig(**sizes, intermediate_size=network.hidden)).eval()
    experts = network.experts
    sizes |= {"num_local_experts": experts.count, "num_experts_per_tok": experts.top_k}
    return MixtralForCausalLM(MixtralConfig(**sizes, intermediate_size=experts.hidden)).eval()


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def ours(model: Transformer, ids_BT: torch.Tensor) -> float:
    """CPU seconds of decoding NEW - 1 tokens a sequence: the first one comes with the prompt."""
    engine = Engine(model, slots=len(ids_BT), capacity=PROMPT + NEW)
    for row in ids_BT.tolist():
        engine.submit(Request(row, NEW, temperature=0))
    engine.step()

    def decode() -> None:
        while engine.busy:
            engine.step()

    # the first step reads the prompts and decodes once
    return cpu_seconds(decode) * (NEW - 1) / (NEW - 2)


def theirs(model: PreTrainedModel, ids_BT: torch.Tensor) -> float:
    def generate(count: int) -> None:
        model.generate(ids_BT, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)

    return cpu_seconds(lambda: generate(NEW)) - cpu_seconds(lambda: generate(1))


def in_cache(model: Transformer, cache: Cache, batch: int) -> float:
    """CPU seconds of decoding a token of each sequence, NEW positions before the end of FAR."""
    ids_B1 = torch.zeros(batch, 1, dtype=torch.long)

    def decode() -> None:
        for position in range(FAR - NEW, FAR):
            model(ids_B1, torch.full((batch, 1), position), cache=cache)

    with torch.inference_mode():
        return cpu_seconds(decode) / NEW


def ring(rounds: int, as_json: bool) -> None:
    """Tokens per CPU second of both kinds of cache."""
    network = NETWORKS["dense"].model_copy(update={"attention": ATTENTION.model_copy(update={"window": WINDOW})})
    model = Transformer(network, VOCAB)
    model.init_weights(0)
    for batch in (1, 8):
        caches = [Cache(network, batch, FAR, spare=spare) for spare in (0, FAR)]
        best = [min(in_cache(model, cache, batch) for _ in range(rounds)) for cache in caches]
        row = {"window": WINDOW, "position": FAR, "batch": batch}
        row |= {"ring": round(batch / best[0]), "full": round(batch / best[1]), "ratio": round(best[1] / best[0], 2)}
        print(json.dumps(row) if as_json else "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per row instead of a table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ring", action="store_true", help="compare our own two kinds of cache instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.ring:
        ring(arguments.rounds, arguments.json)
        return
    if not arguments.json:
        print(
            f"{'network':10} {'batch':>5} {'glassbox':>9} {'transformers':>13} {'ratio':>6}   (tokens per CPU second)"
        )
    for name, network in NETWORKS.items():
        model, other = Transformer(network, VOCAB), peer(network)
        model.init_weights(0)
        for batch in (1, 8, 32, 64):
            ids_BT = torch.randint(VOCAB, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
            rounds = [(ours(model, ids_BT), theirs(other, ids_BT)) for _ in range(arguments.rounds)]
            mine, his = (batch * (NEW - 1) / min(column) for column in zip(*rounds, strict=True))
            row = {"network": name, "batch": batch, "glassbox": round(mine), "transformers": round(his)}
            row["ratio"] = round(mine / his, 2)
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                print(f"{name:10} {batch:5} {mine:9.0f} {his:13.0f} {mine / his:6.2f}", flush=True)


if __name__ == "__main__":
    main()
