"""Attention with windows and packed documents: in chunks of queries and by PyTorch's fused kernel, one thread.

    python benchmarks/attention.py            a table
    python benchmarks/attention.py --json     one JSON line per row

CPU milliseconds of forward and backward on 4,096 tokens; the fused kernel gets a dense mask, or `is_causal` where the
row is plainly causal. Both take turns, and the best of several rounds counts.
"""

import argparse
import json
import time

import torch

from glassbox.model import spans
from glassbox.model.attention import attend
from glassbox.recipe.network import Attention, Network

HEADS, HEAD_DIM, TOKENS = 8, 64, 4096
CASES = [  # tokens of a row, window, mean length of a document
    (256, None, None),
    (256, 128, 100),
    (1024, None, None),
    (1024, 128, None),
    (1024, None, 300),
    (4096, None, None),
    (4096, 512, None),
    (4096, 128, None),
    (4096, None, 300),
]


def seconds(T: int, window: int | None, document: int | None, kv_heads: int, dtype: torch.dtype, rounds: int) -> tuple:
    """CPU seconds (in chunks, fused)."""
    generator, B = torch.Generator().manual_seed(0), TOKENS // T
    settings = Attention(heads=HEADS, kv_heads=kv_heads, head_dim=HEAD_DIM, window=window)
    documents_BT = None
    if document is not None:
        documents_BT = (torch.rand(B, T, generator=generator) < 1 / document).cumsum(dim=1)
    rows = spans.of_rows(T, window, documents_BT, torch.device("cpu"))
    plain = window is None and document is None
    forms = [
        spans.chunked(rows, Network(dim=8, layers=1, hidden=8, attention=settings), keep=True),
        None if plain else spans.dense_bias(rows, T, dtype),
    ]
    q, k, v = (
        torch.randn(B, T, heads, HEAD_DIM, generator=generator).to(dtype).requires_grad_()
        for heads in (HEADS, kv_heads, kv_heads)
    )
    best = [float("inf")] * 2
    for _ in range(rounds):
        for i, seen in enumerate(forms):
            start = time.process_time()
            y = attend(q, k, v, seen)
            y.backward(torch.ones_like(y))
            best[i] = min(best[i], time.process_time() - start)
    return tuple(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per row instead of a table")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.json:
        print("row    window  document  kv heads  precision   chunks   fused   ratio   (CPU milliseconds)")
    for T, window, document in CASES:
        for kv_heads in (HEADS, 2):
            for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                mine, fused = seconds(T, window, document, kv_heads, dtype, arguments.rounds)
                row = {"row": T, "window": window, "document": document, "kv_heads": kv_heads, "precision": precision}
                row |= {"chunks_ms": round(1e3 * mine), "fused_ms": round(1e3 * fused), "ratio": round(fused / mine, 2)}
                if arguments.json:
                    print(json.dumps(row), flush=True)
                else:
                    print(
                        f"{T:5}  {window or '-':>6}  {document or '-':>8}  {kv_heads:8}  {precision:9}"
                        f"  {row['chunks_ms']:7}  {row['fused_ms']:6}  {row['ratio']:6}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
