"""The baselines against brute force, on the very positions a model is scored on."""

import collections
import lzma
import math
from itertools import pairwise

import numpy as np
import pytest

from glassbox.tokens.baselines import STRENGTHS, bigram_bits_per_byte, choose_strength, count, xz_bits_per_byte
from glassbox.tokens.batches import NO_LABEL, held_out_rows
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import decode


def documents(shard):
    return [shard.tokens[a:b].tolist() for a, b in zip(shard.index[:-1], shard.index[1:], strict=True)]


@pytest.mark.parametrize("train_sources", [["code"], None])
@pytest.mark.parametrize("limit", [None, 3])
def test_bigram_equals_brute_force(tokens_folder, train_sources, limit):
    folder = TokenFolder(tokens_folder)
    shards = [folder.shard(source, "train") for source in train_sources or folder.sources]
    pairs, before, after = collections.Counter(), collections.Counter(), collections.Counter()
    for shard in shards:
        for ids in documents(shard):
            pairs.update(pairwise(ids))
            before.update(ids[:-1])
            after.update(ids[1:])
    strength = choose_strength(shards, folder.vocab_size)
    bits, total = 0.0, 0
    for batch, text_bytes in held_out_rows(tokens_folder, "code", 32, limit):
        total += text_bytes
        for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            for previous, label in zip(ids[:-1], labels[1:], strict=True):
                if label != NO_LABEL:
                    unigram = (after[label] + 1) / (after.total() + folder.vocab_size)
                    p = (pairs[previous, label] + strength * unigram) / (before[previous] + strength)
                    bits -= math.log2(p)
    value = bigram_bits_per_byte(tokens_folder, "code", 32, limit, train_sources)
    assert value == pytest.approx(bits / total, rel=1e-9)


def test_bigram_is_a_distribution(tokens_folder):
    folder = TokenFolder(tokens_folder)
    tokens = folder.shard("code", "train").tokens[:5000].astype(np.int64)
    model = count([(tokens[:-1], tokens[1:])], folder.vocab_size)
    every = np.arange(folder.vocab_size)
    for previous in (0, int(tokens[0]), folder.eos_id):
        p = np.exp2(model.log2((np.full_like(every, previous), every), strength=8.0))
        assert p.sum() == pytest.approx(1.0)


def test_the_strength_is_the_best_for_text_put_aside(tokens_folder):
    shard = TokenFolder(tokens_folder).shard("code", "train")
    cut = len(shard) * 9 // 10
    firsts = set(shard.index.tolist())

    def pairs(start, stop):
        places = [n for n in range(start + 1, stop) if n not in firsts]
        return shard.tokens[np.array(places) - 1].astype(np.int64), shard.tokens[places].astype(np.int64)

    model = count([pairs(0, cut)], 700)
    scores = [model.log2(pairs(cut, len(shard)), strength).sum() for strength in STRENGTHS]
    assert choose_strength([shard], 700) == STRENGTHS[int(np.argmax(scores))]


def test_chunks_do_not_change_the_counts(tokens_folder, monkeypatch):
    whole = bigram_bits_per_byte(tokens_folder, "code", 32)
    monkeypatch.setattr("glassbox.tokens.baselines.CHUNK", 777)
    assert bigram_bits_per_byte(tokens_folder, "code", 32) == pytest.approx(whole, rel=1e-12)


def test_xz_compresses_the_labelled_text(tokens_folder, tokenizer):
    shard = TokenFolder(tokens_folder).shard("code", "held_out")
    context = len(shard)  # one window: all but the first token of each document
    text = "".join(decode(tokenizer, ids[1:-1]) for ids in documents(shard)).encode()
    size = len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    assert xz_bits_per_byte(tokens_folder, "code", context) == pytest.approx(8 * size / len(text))


def test_nothing_held_out_is_not_a_number(tokens_folder):
    assert math.isnan(bigram_bits_per_byte(tokens_folder, "problems", 32))
    assert math.isnan(xz_bits_per_byte(tokens_folder, "problems", 32))
