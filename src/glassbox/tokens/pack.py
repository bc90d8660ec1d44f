"""Packing conversations into rows, whole: best-fit decreasing (arXiv:2404.10830)."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from glassbox.tokens.batches import Batch, packed

Encoded = tuple[Sequence[int], Sequence[bool]]
"""A conversation's ids and its mask of trained tokens, as `chat.encode_chat` gives them."""


def pack_conversations(encoded: Sequence[Encoded], context: int) -> tuple[list[list[int]], list[int]]:
    """Place conversations into rows of `context` tokens: (rows of conversation numbers, numbers left out).

    Left out are those longer than a row and those without a trained token. Longest first, each goes into the fullest
    row where it fits, so the rows come out longest first too: shuffle them before training, then `rows_to_batch`.
    """
    fits = [number for number, (ids, mask) in enumerate(encoded) if len(ids) <= context and any(mask[1:])]
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for number in sorted(fits, key=lambda n: (-len(encoded[n][0]), n)):
        length = len(encoded[number][0])
        found = bisect_left(free, (length, -1))
        if found == len(free):
            rows.append([])
            insort(free, (context, len(rows) - 1))
            found = len(free) - 1
        space, row = free.pop(found)
        rows[row].append(number)
        insort(free, (space - length, row))
    placed = set(fits)
    return rows, [number for number in range(len(encoded)) if number not in placed]


def rows_to_batch(encoded: Sequence[Encoded], rows: Sequence[Sequence[int]], context: int, pad_id: int) -> Batch:
    """The batch of some packed rows, (len(rows), context); labels stand on trained tokens only."""
    ids = np.full((len(rows), context), pad_id, dtype=np.int64)
    starts = np.zeros(ids.shape, dtype=bool)
    trained = np.zeros(ids.shape, dtype=bool)
    filled = np.zeros(ids.shape, dtype=bool)
    for row, numbers in enumerate(rows):
        place = 0
        for number in numbers:
            tokens, mask = encoded[number]
            ids[row, place : place + len(tokens)] = tokens
            trained[row, place : place + len(tokens)] = mask
            starts[row, place] = True
            filled[row, place : place + len(tokens)] = True
            place += len(tokens)
        starts[row, place : place + 1] = True  # padding has positions of its own
    return packed(ids, starts, trained, filled)
