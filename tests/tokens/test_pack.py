"""Packing conversations: nothing lost, nothing doubled, nothing cut, and labels only on trained tokens."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glassbox.tokens.batches import NO_LABEL
from glassbox.tokens.pack import pack_conversations, rows_to_batch

CONVERSATIONS = st.lists(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(1, 99), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
        )
    ),
    max_size=25,
)


@given(CONVERSATIONS)
def test_each_conversation_stands_once_or_is_left_out(encoded):
    rows, left_out = pack_conversations(encoded, 24)
    placed = [number for row in rows for number in row]
    assert sorted(placed + left_out) == list(range(len(encoded)))
    for number in left_out:
        ids, mask = encoded[number]
        assert len(ids) > 24 or not any(mask[1:])
    for row in rows:
        assert 0 < sum(len(encoded[number][0]) for number in row) <= 24


@given(CONVERSATIONS)
def test_rows_equal_brute_force(encoded):
    rows, _ = pack_conversations(encoded, 24)
    batch = rows_to_batch(encoded, rows, 24, pad_id=0)
    for r, row in enumerate(rows):
        ids, labels, positions, documents = [], [], [], []
        for d, number in enumerate(row):
            tokens, mask = encoded[number]
            ids += tokens
            labels += [NO_LABEL] + [t if m else NO_LABEL for t, m in zip(tokens[1:], mask[1:], strict=True)]
            positions += range(len(tokens))
            documents += [d] * len(tokens)
        padding = 24 - len(ids)
        assert batch.ids[r].tolist() == ids + [0] * padding
        assert batch.labels[r].tolist() == labels + [NO_LABEL] * padding
        assert batch.positions[r].tolist() == positions + list(range(padding))
        assert batch.documents[r].tolist() == documents + [-1] * padding


def test_rows_are_well_filled():
    lengths = np.random.default_rng(0).lognormal(4, 0.6, 3000).astype(int) % 500 + 2
    encoded = [([1] * n, [True] * n) for n in lengths.tolist()]
    rows, left_out = pack_conversations(encoded, 512)
    assert not left_out
    assert lengths.sum() / (512 * len(rows)) > 0.99


def test_best_fit_by_hand():
    encoded = [([1] * n, [True] * n) for n in (4, 6, 3, 5, 2, 11)]
    rows, left_out = pack_conversations(encoded, 10)
    assert rows == [[1, 0], [3, 2, 4]]
    assert left_out == [5]
