"""Problems with a checkable answer, in as many kinds as the recipe lists.

Whether a problem is for training or held out is a hash of its kind and canonical operands under a fixed key: it depends
on no seed, count, wording or order, so no recipe can ever train on a problem that some recipe holds out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from glassbox.errors import RequestError
from glassbox.judge.kinds import KINDS, Operands, Written
from glassbox.judge.stories import STORIES
from glassbox.recipe.text import ProblemKind

Split = Literal["train", "held_out"]

EVERY_KIND = {**KINDS, **STORIES}
HELD_OUT_SHARE = 0.2
"""Share of the space of problems that is held out."""
PATIENCE = 5_000
"""Draws in a row without a new problem after which a kind counts as used up."""


@dataclass(frozen=True)
class Problem:
    """A question with its worked solution; `solution` ends in the line "#### " + `answer`."""

    id: str
    kind: str
    question: str
    solution: str
    answer: str


def generate(kinds: Sequence[ProblemKind], count: int, seed: int, split: Split, bare: float = 0.0) -> Iterator[Problem]:
    """`count` different problems of one split, the kinds interleaved evenly by weight.

    A pure function of its arguments; with the same seed, a smaller count gives the same problems of each kind from the
    front. A share of `bare` has the answer alone for a solution. Raises RequestError when a kind's range holds too few
    different problems.
    """
    seen: set[str] = set()
    streams = [
        _stream(kind, Random(f"problems/{seed}/{split}/{n}/{kind.kind}"), split, seen, bare)
        for n, kind in enumerate(kinds)
    ]
    shares = [kind.weight / sum(other.weight for other in kinds) for kind in kinds]
    drawn = [0] * len(kinds)
    for made in range(count):
        behind = [share * (made + 1) - done for share, done in zip(shares, drawn, strict=True)]
        chosen = behind.index(max(behind))
        problem = next(streams[chosen], None)
        if problem is None:
            raise RequestError(
                f"problems of kind '{kinds[chosen].kind}' ran out after {drawn[chosen]} different {split} ones, when "
                f"{count} of all kinds were asked for; widen its low..high, lower its weight or ask for fewer"
            )
        drawn[chosen] += 1
        yield problem


def split_of(kind: str, operands: Operands) -> Split:
    """The side on which a problem falls."""
    return "held_out" if int(_digest(kind, operands)[:16], 16) < HELD_OUT_SHARE * 2**64 else "train"


def _digest(kind: str, operands: Operands) -> str:
    text = f"{kind}:{','.join(map(str, operands))}"
    return hashlib.blake2b(text.encode(), key=b"glassbox problems", digest_size=16).hexdigest()


def _stream(kind: ProblemKind, rng: Random, split: Split, seen: set[str], bare: float) -> Iterator[Problem]:
    """New problems of one kind until `PATIENCE` draws in a row bring none."""
    made = EVERY_KIND[kind.kind]
    low, high = _range(kind)
    fruitless = 0
    while fruitless < PATIENCE:
        fruitless += 1
        operands = made.draw(rng, low, high)
        if operands is None or split_of(kind.kind, operands) != split:
            continue
        digest = _digest(kind.kind, operands)
        if digest not in seen:
            seen.add(digest)
            fruitless = 0
            yield _problem(kind.kind, digest, made.write(rng, operands), bare)


def _range(kind: ProblemKind) -> tuple[int, int]:
    made = EVERY_KIND[kind.kind]
    low = made.low if kind.low is None else kind.low
    high = made.high if kind.high is None else kind.high
    if low >= high:
        raise RequestError(f"problems of kind '{kind.kind}': low {low} must be below high {high}; give both")
    return low, high


def _problem(kind: str, digest: str, written: Written, bare: float) -> Problem:
    """Whether the work is left out follows from the problem alone, like its split but from other bits of its hash."""
    lines = [] if int(digest[16:], 16) < bare * 2**64 else written.lines
    solution = "\n".join([*lines, f"#### {written.answer}"])
    return Problem(f"{kind}-{digest[16:]}", kind, written.question, solution, str(written.answer))
