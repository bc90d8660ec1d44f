"""The order of the data as a pure function: which window of which source is row r of a phase.

No state: a row's source and window follow from (seed, mixture, r) alone, in constant time, so resuming is seeking, any
number of devices reads the same data, and "what was read at step k" needs no log. Two parts:

- `permute`: a keyed bijection of [0, n), a Feistel network (Luby and Rackoff 1988) on the smallest even number of bits
  that holds n, walked along its cycle until it lands below n (Black and Rogaway 2002).
- `Mixture`: rows come in blocks; every block boundary, and the phase's end, has each source's exact share of the rows
  so far, to within one row (largest remainders), and a keyed permutation orders the rows inside a block.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
BLOCK = 1024
"""Rows of a block, unless a source's weight is so small that its share of one would be less than a row."""

_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Multipliers of the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""


@dataclass(frozen=True)
class Share:
    """Which part of a step's rows a process reads: the `index`-th of `count`, whole neighbouring rows."""

    index: int = 0
    count: int = 1

    def of(self, rows: int) -> range:
        """Numbers of the process's rows out of `rows`; shares differ by at most one row."""
        return range(self.index * rows // self.count, (self.index + 1) * rows // self.count)


ALL = Share()
"""Every row: a process on its own."""


@lru_cache(maxsize=4096)
def round_keys(seed: int, purpose: str) -> tuple[int, ...]:
    """`ROUNDS` keys of 64 bits from a seed and what they are for."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8 * ROUNDS, person=b"glassbox order").digest()
    return tuple(int(key) for key in np.frombuffer(digest, dtype="<u8"))


def permute(index: NDArray[np.int64] | int, n: int, keys: tuple[int, ...]) -> NDArray[np.int64]:
    """Where a keyed permutation of [0, n) sends each index; the same on every machine.

    index (any shape), each in [0, n) -> int64 of the same shape.
    """
    value = np.asarray(index, dtype=np.uint64)
    if value.size and (int(value.max()) >= n):
        raise IndexError(f"index {int(value.max())} outside a permutation of {n}")
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    value = _feistel(value, half, keys)
    outside = value >= n
    while outside.any():
        value = np.where(outside, _feistel(value, half, keys), value)
        outside = value >= n
    return value.astype(np.int64)


def _feistel(value: NDArray[np.uint64], half: int, keys: tuple[int, ...]) -> NDArray[np.uint64]:
    """One pass over 2 * half bits."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ np.uint64(key)) & mask)
    return (left << shift) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * _A
        x = (x ^ (x >> np.uint64(27))) * _B
    return x ^ (x >> np.uint64(31))


def epoch_indices(step: int, rows: int, available: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Which `rows` of `available` a step takes: each epoch in an order of its own, without the rest that fills no step.

    An epoch is `available // rows` steps. Returns int64 (rows,).
    """
    epoch, turn = divmod(step, available // rows)
    keys = round_keys(seed, f"{purpose}/epoch {epoch}")
    return permute(np.arange(turn * rows, (turn + 1) * rows), available, keys)


def data_step(step: int, steps: int, replaced: Sequence[Sequence[int]]) -> int:
    """Which step's data a step of a run of `steps` reads, once [first, end) stretches of steps were gone back from: its
    own, or, for each of them that it lies in, that of one whole run later. Batches of numbers beyond the last step are
    data read anew."""
    return step + steps * sum(first <= step < end for first, end in replaced)


class Mixture:
    """Rows of a mixture of sources, for a phase of `rows` rows.

    `weights` are relative; sources of weight 0 are never drawn. `purpose` keeps the orders of two phases apart. The
    last block takes the rest of the phase, so that its end has the exact shares as well. Rows past the end are the
    phase read anew: in other orders, with draws that go on.
    """

    def __init__(self, weights: Mapping[str, float | Fraction], rows: int, seed: int, purpose: str):
        total = sum(Fraction(weight) for weight in weights.values())
        self.shares = {source: Fraction(weight) / total for source, weight in sorted(weights.items()) if weight > 0}
        self.sources = tuple(self.shares)
        smallest = min(self.shares.values())
        self.block = max(BLOCK, 1 << (-(-smallest.denominator // smallest.numerator) - 1).bit_length())
        self.blocks = max(1, rows // self.block)
        self.counts = largest_remainders(self.shares.values(), rows)
        """Rows of each source in the phase."""
        self._rows, self._seed, self._purpose = rows, seed, purpose
        self._before = lru_cache(maxsize=64)(self._count)

    def draws(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of rows (n,) -> (number of the source of each, how many rows of that source were drawn before it,
        counted within its block in a shuffled order), both (n,). Over all rows, each source's draw numbers are
        0, 1, 2, ... without gap or repetition."""
        turn, row = np.divmod(rows, self._rows)
        block = np.minimum(row // self.block, self.blocks - 1)
        source, draw = np.empty_like(rows), np.empty_like(rows)
        for number in np.unique(turn * self.blocks + block).tolist():
            inside = turn * self.blocks + block == number
            source[inside], draw[inside] = self._in_block(number, row[inside])
        return source, draw + turn * np.array(self.counts)[source]

    def _in_block(self, number: int, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sources and draws of rows of one block, as the phase is read for the first time."""
        block = number % self.blocks
        first = block * self.block
        before, after = np.array(self._before(block)), np.array(self._before(block + 1))
        ends = np.cumsum(after - before)
        slot = permute(row - first, int(ends[-1]), round_keys(self._seed, f"{self._purpose}/block {number}"))
        chosen = np.searchsorted(ends, slot, side="right")
        return chosen, before[chosen] + slot - (ends - (after - before))[chosen]

    def _count(self, block: int) -> tuple[int, ...]:
        """Rows of each source before a block."""
        if block == self.blocks:
            return self.counts
        return largest_remainders(self.shares.values(), block * self.block)


def largest_remainders(shares: Iterable[Fraction], rows: int) -> tuple[int, ...]:
    """So many rows divided by shares that add up to 1, rounded by largest remainders: never off by a whole row."""
    exact = [share * rows for share in shares]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: rows - sum(whole)]:
        whole[i] += 1
    return tuple(whole)
