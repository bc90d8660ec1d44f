"""Merging, held against the definition: the pair of lowest rank, of equals the leftmost, again and again."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.tokens.merges import SHORT, merge_piece, merge_tables


def random_merges(seed, alphabet, count):
    """Merges of small tokens, some of which make the same token in two ways."""
    draw = random.Random(seed)
    tokens = [bytes([byte]) for byte in alphabet]
    ids, merges = {token: 1000 + n for n, token in enumerate(tokens)}, {}
    while len(merges) < count:
        left, right = draw.choice(tokens), draw.choice(tokens)
        if len(left + right) > 12 or (ids[left], ids[right]) in merges:
            continue
        if left + right not in ids:
            ids[left + right] = 1000 + len(ids)
            tokens.append(left + right)
        merges[ids[left], ids[right]] = (len(merges), ids[left + right])
    return ids, merges


def by_definition(ids, merges):
    while True:
        ranked = [(merges[pair][0], place) for place, pair in enumerate(pairwise(ids)) if pair in merges]
        if not ranked:
            return ids
        _, place = min(ranked)
        ids = [*ids[:place], merges[ids[place], ids[place + 1]][1], *ids[place + 2 :]]


@pytest.fixture(scope="module")
def vocabulary():
    ids, merges = random_merges(3, b"abcd", 60)
    byte_ids = np.array([ids.get(bytes([byte]), 5000 + byte) for byte in range(256)], np.int32)
    return byte_ids, merges, merge_tables(byte_ids, merges)


def assert_merged(vocabulary, text):
    byte_ids, merges, tables = vocabulary
    data, out = np.frombuffer(b"--" + text + b"--", np.uint8), np.zeros(len(text) + 5, np.uint32)
    count = merge_piece(data, 2, 2 + len(text), *tables, out, 3, np.empty(SHORT, np.int32))
    assert out[3 : 3 + count].tolist() == by_definition([int(byte_ids[byte]) for byte in text], merges)
    assert not out[:3].any()


@given(text=st.text("abcde", min_size=1, max_size=SHORT).map(str.encode))
def test_short_pieces(vocabulary, text):
    assert_merged(vocabulary, text)


@pytest.mark.parametrize("seed", range(12))
def test_pieces_on_both_sides_of_the_border(vocabulary, seed):
    draw = random.Random(seed)
    for size in (SHORT - 1, SHORT, SHORT + 1, SHORT + 300):
        assert_merged(vocabulary, bytes(draw.choices(b"aabcd"[: 2 + seed % 4], k=size)))


def test_a_vocabulary_without_merges():
    tables = merge_tables(np.arange(256, dtype=np.int32), {})
    out = np.zeros(3, np.uint32)
    assert merge_piece(np.frombuffer(b"abc", np.uint8), 0, 3, *tables, out, 0, np.empty(SHORT, np.int32)) == 3
    assert out.tolist() == list(b"abc")
