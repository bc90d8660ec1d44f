"""The check that ends every import and export: the same logits from source and result.

Letters: T tokens, V vocabulary.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassbox.errors import GlassboxError
from glassbox.model.families import Sizes
from glassbox.model.tensors import PIECE_BYTES, Tensors
from glassbox.model.transformer import Transformer

TOKENS = 24
"""Length of the fixed text."""
ALLOWED = 1e-5
"""How far logits may move, as a share of their size."""


@dataclass(frozen=True)
class Difference:
    """How far the logits of a fixed text moved."""

    largest: float
    """The largest difference of two logits."""
    share: float
    """The differences' root mean square as a share of the logits' own."""


def compare(source: Tensor, result: Tensor) -> Difference:
    """Hold the result's logits against the source's, both of weights in the types that were to be written.

    Raises `GlassboxError` where more differs than fp32 rounds away.
    """
    largest = float((source - result).abs().max())
    share = float((source - result).square().mean().sqrt() / source.square().mean().sqrt().clamp_min(1e-30))
    if not share <= ALLOWED:
        raise GlassboxError(
            f"the result does not compute what the source does: its logits differ by {share:.2g} of their size, and "
            f"{ALLOWED:.2g} would be rounding; nothing was written"
        )
    return Difference(largest, share)


@torch.inference_mode()
def logits(sizes: Sizes, tensors: Tensors) -> Tensor:
    """Logits (1 + multi-token blocks, T, V) of a fixed row of tokens, in fp32, with one block's weights in memory."""
    network, vocab_size, context = sizes
    with torch.device("meta"):
        model = Transformer(network, vocab_size)
    model.blocks = _OneByOne(model.blocks, tensors, "blocks.")
    model.multi_token = _OneByOne(model.multi_token, tensors, "multi_token.")
    _fill(model.norm, tensors, "norm.")
    # of the embedding only the rows of the text are here, so the text is the numbers of these rows
    ids = [(7919 * i + 13) % vocab_size for i in range(min(TOKENS, context))]
    rows = torch.cat([tensors.read("embedding.weight", i, i + 1) for i in ids])
    model.embedding.weight = nn.Parameter(rows, requires_grad=False)
    output = model(torch.arange(len(ids))[None], drafts=network.multi_token is not None)
    hidden = torch.cat([output.hidden_BTD, *output.drafts])
    head = "embedding.weight" if network.tie_embeddings else "head.weight"
    step = max(1, PIECE_BYTES // (4 * network.dim))
    parts = [hidden @ tensors.read(head, at, at + step).float().T for at in range(0, vocab_size, step)]
    return torch.cat(parts, dim=-1)


class _OneByOne(nn.ModuleList):
    """Modules whose weights are in memory only while it is their turn."""

    def __init__(self, modules: nn.ModuleList, tensors: Tensors, prefix: str):
        super().__init__(modules)
        self._tensors, self._prefix = tensors, prefix

    def __iter__(self) -> Iterator[nn.Module]:
        for number, module in enumerate(super().__iter__()):
            _fill(module, self._tensors, f"{self._prefix}{number}.")
            yield module
            module.to_empty(device="meta")
            _trim()


def _trim() -> None:
    """Give freed memory back to the system: glibc keeps blocks of up to 32 MB for later use, hundreds of MB of them."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _fill(module: nn.Module, tensors: Tensors, prefix: str) -> None:
    module.load_state_dict({name: tensors.read(prefix + name).float() for name in module.state_dict()}, assign=True)
