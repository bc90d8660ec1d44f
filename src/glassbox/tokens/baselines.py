"""What a model must beat on held-out text: a bigram token model and xz, in bits per byte of the very same text.

Both are scored on the tokens that carry a label in `held_out_rows`, as the model is. The bigram model backs off to the
unigram by a Dirichlet prior (MacKay and Peto 1995):

    p(w | v) = (count(v w) + strength * p(w)) / (count(v) + strength),   p(w) = (count(w) + 1) / (tokens + vocabulary)

Its strength is chosen on the last tenth of the training tokens with counts from the rest, then all are counted.
"""

import lzma
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassbox.tokens.batches import NO_LABEL, held_out_rows
from glassbox.tokens.shards import TokenFolder, TokenShards
from glassbox.tokens.tokenizer import load_tokenizer, token_bytes

STRENGTHS = tuple(2.0**power for power in range(-2, 15))
CHUNK = 1 << 24
"""Training tokens counted at a time."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Tokens and the tokens that follow them, of equal length."""


@dataclass(frozen=True)
class Bigram:
    """Counts of pairs, sparse: `codes` = previous * vocabulary + next, sorted."""

    codes: NDArray[np.int64]
    counts: NDArray[np.int64]
    before_V: NDArray[np.int64]
    unigram_V: NDArray[np.float64]

    def log2(self, pairs: Pairs, strength: float) -> NDArray[np.float64]:
        """log2 p(next | previous) of each pair."""
        previous, following = pairs
        code = previous * len(self.unigram_V) + following
        place = np.minimum(np.searchsorted(self.codes, code), max(0, len(self.codes) - 1))
        seen = np.where(self.codes[place] == code, self.counts[place], 0) if len(self.codes) else np.zeros(len(code))
        probability = (seen + strength * self.unigram_V[following]) / (self.before_V[previous] + strength)
        return np.log2(probability)


def bigram_bits_per_byte(
    tokens_folder: Path, source: str, context: int, limit: int | None = None, train_sources: Sequence[str] | None = None
) -> float:
    """Bits per byte of the bigram model on a source's held-out text (`held_out_rows` with the same context and limit).

    It is trained on the training tokens of `train_sources`; default: of all sources. NaN when nothing is held out.
    """
    folder = TokenFolder(tokens_folder)
    shards = [folder.shard(name, "train") for name in train_sources or folder.sources]
    pairs, text_bytes = _held_out_pairs(tokens_folder, source, context, limit)
    if not text_bytes:
        return math.nan
    strength = choose_strength(shards, folder.vocab_size)
    model = count([chunk for shard in shards for chunk in _pairs(shard, 0, len(shard))], folder.vocab_size)
    return float(-model.log2(pairs, strength).sum() / text_bytes)


def xz_bits_per_byte(tokens_folder: Path, source: str, context: int, limit: int | None = None) -> float:
    """Bits per byte of `xz -9e` on the same held-out text, concatenated; NaN when nothing is held out."""
    pieces = token_bytes(load_tokenizer(TokenFolder(tokens_folder).tokenizer_folder))
    (_, following), text_bytes = _held_out_pairs(tokens_folder, source, context, limit)
    if not text_bytes:
        return math.nan
    text = b"".join(pieces[i] for i in following)
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / text_bytes


def choose_strength(shards: Sequence[TokenShards], vocab_size: int) -> float:
    """The strength with the most likely last tenth of each shard, under counts of the first nine tenths."""
    cuts = [len(shard) * 9 // 10 for shard in shards]
    model = count([c for shard, cut in zip(shards, cuts, strict=True) for c in _pairs(shard, 0, cut)], vocab_size)
    asides = [c for shard, cut in zip(shards, cuts, strict=True) for c in _pairs(shard, cut, len(shard))]
    scores = [sum(float(model.log2(pairs, strength).sum()) for pairs in asides) for strength in STRENGTHS]
    return STRENGTHS[scores.index(max(scores))]


def count(chunks: Sequence[Pairs], vocab_size: int) -> Bigram:
    """Count pairs; the unigram counts the following tokens."""
    counted = [np.unique(previous * vocab_size + following, return_counts=True) for previous, following in chunks]
    before, after = np.zeros(vocab_size, dtype=np.int64), np.zeros(vocab_size, dtype=np.int64)
    for previous, following in chunks:
        before += np.bincount(previous, minlength=vocab_size)
        after += np.bincount(following, minlength=vocab_size)
    every = np.concatenate([codes for codes, _ in counted]) if counted else np.zeros(0, dtype=np.int64)
    codes, place = np.unique(every, return_inverse=True)
    counts = np.zeros(len(codes), dtype=np.int64)
    if counted:
        np.add.at(counts, place, np.concatenate([number for _, number in counted]))
    return Bigram(codes, counts, before, (after + 1) / (after.sum() + vocab_size))


def _pairs(shard: TokenShards, start: int, stop: int) -> Iterator[Pairs]:
    """Neighbours inside documents, end-of-text as the last token of each, a chunk at a time."""
    for first in range(start, stop, CHUNK):
        last = min(first + CHUNK, stop - 1)
        if last <= first:
            return
        tokens = shard.tokens[first : last + 1].astype(np.int64)
        inside = np.ones(len(tokens) - 1, dtype=bool)
        low, high = np.searchsorted(shard.index, [first + 1, last + 1])
        inside[shard.index[low:high] - first - 1] = False  # the pair that leads into a document's first token
        yield tokens[:-1][inside], tokens[1:][inside]


def _held_out_pairs(tokens_folder: Path, source: str, context: int, limit: int | None) -> tuple[Pairs, int]:
    """Every labelled token with its predecessor, and the bytes they stand for."""
    previous, following, total = [], [], 0
    for batch, text_bytes in held_out_rows(tokens_folder, source, context, limit):
        labelled = batch.labels[:, 1:] != NO_LABEL
        previous.append(batch.ids[:, :-1][labelled])
        following.append(batch.ids[:, 1:][labelled])
        total += text_bytes
    empty = [np.zeros(0, dtype=np.int64)]
    return (np.concatenate(previous or empty), np.concatenate(following or empty)), total
