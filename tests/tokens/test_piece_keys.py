"""Keys: equal for equal bytes wherever they stand, different for different short pieces."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glassbox.tokens.piece_keys import INLINE, hash_bytes, key_slot, piece_key


def key(piece, before=b"", after=b""):
    return piece_key(np.frombuffer(before + piece + after, np.uint8), len(before), len(piece))


@given(piece=st.binary(min_size=1, max_size=127), before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_a_key_depends_on_the_bytes_alone(piece, before, after):
    assert key(piece) == key(piece, before, after)
    assert key(piece)[1] >> 56 == len(piece)
    assert 0 <= key_slot(*map(np.uint64, key(piece)), 64) < 64


@given(one=st.binary(min_size=1, max_size=INLINE), other=st.binary(min_size=1, max_size=INLINE))
def test_keys_of_short_pieces_are_equal_only_for_equal_pieces(one, other):
    assert (key(one) == key(other)) == (one == other)


def test_keys_of_pieces_that_differ_in_one_bit_differ():
    for size in (1, 7, 8, 9, 15, 16, 17, 40):
        piece = bytes(range(65, 65 + size))
        others = [piece[:i] + bytes([piece[i] ^ 1 << bit]) + piece[i + 1 :] for i in range(size) for bit in range(8)]
        assert len({key(other) for other in [*others, piece]}) == 8 * size + 1
        assert hash_bytes(np.frombuffer(piece, np.uint8), 0, size) == hash_bytes(
            np.frombuffer(piece, np.uint8), 0, size
        )
