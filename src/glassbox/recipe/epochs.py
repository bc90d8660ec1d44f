"""What share of a phase each shard gets, and how many times each is read: closed forms, exact fractions.

A shard is a source, or `source/category` where `tokenize` divided it.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from glassbox.recipe.phases import Phase


def shares(phase: Phase, sizes: Mapping[str, int]) -> dict[str, Fraction]:
    """Shard -> its share of the phase's rows; together 1. `sizes` are the shards' training tokens.

    A source's weight is divided among its categories by size times the phase's factor for each. A source that all
    factors leave without a token has no share.
    """
    found: dict[str, Fraction] = {}
    for source, weight in phase.mixture.items():
        parts = [name for name in sizes if name.startswith(f"{source}/")]
        sized = {name: sizes[name] * Fraction(phase.categories.get(name, 1)) for name in parts} or {source: Fraction(1)}
        whole = sum(sized.values())
        for name, part in sized.items():
            if weight > 0 and part > 0:
                found[name] = found.get(name, Fraction()) + Fraction(weight) * part / whole
    total = sum(found.values())
    return {name: share / total for name, share in found.items()}


def tokens_read(phases: Sequence[Phase], sizes: Mapping[str, int]) -> dict[str, float]:
    """Tokens that the phases read of each shard, to within a row of each phase."""
    read: dict[str, Fraction] = {}
    for phase in phases:
        for name, share in shares(phase, sizes).items():
            read[name] = read.get(name, Fraction()) + share * phase.total_tokens
    return {name: float(tokens) for name, tokens in sorted(read.items())}


def epochs(phases: Sequence[Phase], sizes: Mapping[str, int]) -> dict[str, float]:
    """How many times the phases read each shard whose size is known."""
    return {name: tokens / sizes[name] for name, tokens in tokens_read(phases, sizes).items() if sizes.get(name)}


def too_often(read: Mapping[str, float], limit: float) -> str | None:
    """What is wrong if a shard is read more than `limit` times."""
    name = max(read, key=lambda name: read[name], default=None)
    if name is None or read[name] <= limit:
        return None
    return (
        f"source '{name}' would be read {read[name]:.2f} times, more than max_epochs {limit:g}: give it a smaller "
        "weight in the mixtures, shorten the phases, add text to it, or raise max_epochs"
    )
