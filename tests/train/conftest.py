"""A network small enough to train in a test, and data for it."""

import numpy as np
import pytest
import torch

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.tokens.order import ALL, Share

VOCABULARY = 61


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(experts: bool = True, tie: bool = False, seed: int = 3, ahead: int = 0, bias: bool = False) -> Transformer:
    """`ahead` blocks that predict further ahead; experts with a score `bias`."""
    part = {"experts": Experts(count=4, top_k=2, hidden=16, score_bias=bias)} if experts else {"hidden": 48}
    network = Network(
        dim=32,
        layers=2,
        attention=Attention(heads=4, kv_heads=2),
        tie_embeddings=tie,
        init_std=0.1,
        multi_token=MultiToken(depth=ahead) if ahead else None,
        **part,
    )
    model = Transformer(network, VOCABULARY)
    model.init_weights(seed)
    return model


def counting_rows(
    step: int, share: Share = ALL, rows: int = 6, context: int = 40, pad: int = 7
) -> dict[str, np.ndarray]:
    """Rows that count upwards from a start drawn from the step; the last `pad` places are padding in odd rows."""
    start = np.random.default_rng(step).integers(0, VOCABULARY, (rows, 1))
    ids = (start + np.arange(context)) % VOCABULARY
    documents = np.zeros_like(ids)
    documents[1::2, context - pad :] = -1
    labels = np.where(documents < 0, -100, ids)
    labels[:, 0] = -100
    batch = {"ids": ids, "labels": labels, "documents": documents}
    return {name: value[share.of(rows)] for name, value in batch.items()}
