"""How often each document is used: category shares and scores to factors, factors to whole copies.

A document's factor is what its category and its scores give, within bounds; what a bound takes from one document or
category is given to the others in proportion. Which documents a factor of 0.3 keeps follows from their ids and the seed
alone, not from their order or from how the work is divided.
"""

from collections.abc import Mapping, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from glassbox.curate.characters import mix
from glassbox.errors import RequestError
from glassbox.recipe.classify import Sampling, ScoreWeight

Floats = NDArray[np.float64]


def score_key(weight: ScoreWeight) -> str:
    """What `factors` calls a score: the classifier stage and the score's name, as quality.depth."""
    return f"{weight.stage}.{weight.score}"


def factors(
    sizes: NDArray[np.int64],
    categories: NDArray[np.integer] | None,
    names: Sequence[str],
    scores: Mapping[str, NDArray[np.floating]],
    settings: Sampling,
) -> Floats:
    """How often each document (n,) of so many bytes is to be used, on average.

    `categories` are indices into `names`, -1 for a document without one; `scores` are keyed by `score_key`, NaN where a
    document has none (its factor is 1). The bytes that come out are divided among categories by `settings.targets` and,
    for all others, as their weights and scores have it. Every factor is within [least, most]. A category that the
    classifier does not know raises RequestError.
    """
    least, most = settings.least, settings.most
    rate = np.exp2(_exponents(len(sizes), scores, settings))
    for name in (*settings.targets, *settings.weights):
        if name not in names:
            raise RequestError(f"sampling: '{name}' is no category of the classifier, which has {', '.join(names)}")
    group = np.zeros(len(sizes), np.int64) if categories is None else categories.astype(np.int64) + 1
    groups = len(names) + 1
    weight = np.ones(groups)
    for name, value in settings.weights.items():
        weight[1 + names.index(name)] = value if value > 1e-9 else 0.0
    rate = rate * weight[group]
    natural = np.clip(rate, least, most)
    if settings.budget is None and not settings.targets:
        return natural
    goal = _masses(group, natural * sizes, groups)
    total = goal.sum() if settings.budget is None else settings.budget * float(sizes.sum())
    if not settings.targets:
        return np.clip(rate * _level(rate, least, most, sizes, total), least, most)
    goal = _with_targets(goal, {1 + names.index(name): share for name, share in settings.targets.items()})
    mass = _masses(group, sizes, groups)
    goal = np.clip(goal * _level(goal, least * mass, most * mass, np.ones(groups), total), least * mass, most * mass)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    out = np.empty(len(sizes))
    for c in range(groups):
        inside = order[bounds[c] : bounds[c + 1]]
        if len(inside):
            # A weight of 0 gives a class no proportions to keep.
            pull = rate[inside] if rate[inside].any() else np.ones(len(inside))
            out[inside] = np.clip(pull * _level(pull, least, most, sizes[inside], goal[c]), least, most)
    return out


def copies(ids: NDArray[np.bytes_], factors: Floats, seed: int) -> NDArray[np.int32]:
    """Whole copies (n,) of each document: the factor's whole part, and one more for a fitting share of the ids."""
    whole = np.floor(factors)
    return (whole + (_uniform(ids, seed) < factors - whole)).astype(np.int32)


def true_masses(confusion: NDArray[np.floating], predicted: Floats) -> Floats:
    """What the categories (k,) truly weigh, given what a classifier with these confusions says they do.

    `confusion` (k, k) counts held-out texts, rows their true class. Solves C^T n = predicted with rows as shares and
    n >= 0; where the exact solution has negative masses, the most likely non-negative one (expectation maximisation).
    """
    seen = confusion.sum(1)
    # Of a class without held-out texts nothing is known: it is taken as never confused.
    shares = np.where(seen[:, None] > 0, confusion / np.maximum(seen, 1)[:, None], np.eye(len(confusion)))
    exact = np.linalg.lstsq(shares.T, predicted, rcond=None)[0]
    close = np.allclose(shares.T @ exact, predicted, rtol=1e-6, atol=1e-9 * max(1.0, float(predicted.sum())))
    if close and (exact >= -1e-9 * max(1.0, float(predicted.sum()))).all():
        return np.maximum(exact, 0.0)
    masses = np.full(len(predicted), predicted.sum() / len(predicted))
    for _ in range(2000):
        expected = shares.T @ masses
        ratio = np.divide(predicted, expected, out=np.zeros_like(expected), where=expected > 0)
        masses = masses * (shares @ ratio)
    return masses


def _masses(group: NDArray[np.int64], weights: NDArray, groups: int) -> Floats:
    return np.bincount(group, weights, groups).astype(np.float64)


def _exponents(n: int, scores: Mapping[str, NDArray[np.floating]], settings: Sampling) -> Floats:
    """log2 of the factor that a document's scores give (the form is ours; MiMo, arXiv:2505.07608, gives none)."""
    total = np.zeros(n)
    for weight in settings.scores:
        total += np.nan_to_num(weight.slope * (scores[score_key(weight)].astype(np.float64) - weight.centre), nan=0.0)
    # Beyond any sensible bound, and far from overflow.
    return np.clip(total, -20.0, 20.0)


def _with_targets(goal: Floats, targets: dict[int, float]) -> Floats:
    """Shares of what comes out: targets as given (where there is anything), the rest among the others as they come."""
    shares = np.zeros_like(goal)
    fixed = np.array(list(targets), np.int64)
    others = np.ones(len(goal), bool)
    others[fixed] = False
    shares[fixed] = list(targets.values())
    rest = max(0.0, 1.0 - shares.sum())
    if goal[others].sum() > 0:
        shares[others] = goal[others] * (rest / goal[others].sum())
    return shares


def _level(rate: Floats, low: Floats | float, high: Floats | float, weight: NDArray, total: float) -> float:
    """x such that the sum of weight * clip(x * rate, low, high) is `total`, or as near as the bounds let it come.

    The sum is piecewise linear in x; its corners are where a bound sets in.
    """
    # A rate so small against the largest would overflow before it mattered.
    pulled = (rate > max(1e-100, 1e-15 * float(rate.max(initial=0.0)))) & (weight > 0)
    if not pulled.any():
        return 1.0
    low, high = np.broadcast_to(low, rate.shape), np.broadcast_to(high, rate.shape)
    fixed = float((weight * low)[~pulled].sum())
    rate, low, high, weight = rate[pulled], low[pulled], high[pulled], weight[pulled]
    corners = np.concatenate([low / rate, high / rate])
    slopes = np.concatenate([weight * rate, -weight * rate])
    order = np.argsort(corners, kind="stable")
    corners, slope = corners[order], np.cumsum(slopes[order])
    at = fixed + float((weight * low).sum()) + np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(corners))])
    k = int(np.searchsorted(at, total, "right")) - 1
    if k < 0:
        return float(corners[0])
    if k >= len(corners) - 1:
        return float(corners[-1])
    return float(corners[k] + (total - at[k]) / slope[k]) if slope[k] > 0 else float(corners[k])


def _uniform(ids: NDArray[np.bytes_], seed: int) -> Floats:
    """A number in [0, 1) for each id (n,), the same for the same id and seed."""
    words = -(-ids.dtype.itemsize // 8)
    padded = np.ascontiguousarray(ids.astype(f"S{8 * words}"))
    out = np.empty(len(ids))
    _hash_uniform(padded.view(np.uint64).reshape(len(ids), words), np.uint64(seed % 2**64), out)
    return out


@numba.njit(nogil=True, cache=True)
def _hash_uniform(ids, seed, out) -> None:  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        value = mix(seed + np.uint64(0x9E3779B97F4A7C15))
        for k in range(ids.shape[1]):
            value = mix(value ^ ids[i, k]) + np.uint64(0x9E3779B97F4A7C15)
        # 53 bits, the most that a double between 0 and 1 tells apart.
        out[i] = np.float64(mix(value) >> np.uint64(11)) * 2.0**-53
