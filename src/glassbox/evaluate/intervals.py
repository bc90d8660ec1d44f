"""Intervals around scores."""

import math
from statistics import NormalDist


def wilson(right: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `right` in `n` independent trials (E. B. Wilson, JASA 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre, spread = (right + z * z / 2) / (n + z * z), z * math.sqrt(right * (n - right) / n + z * z / 4) / (n + z * z)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def ratio(tops: list[float], bottoms: list[float], confidence: float) -> tuple[float, float, float]:
    """(value, low, high) of sum(tops) / sum(bottoms), the pairs being independent units (windows of text).

    The interval is the ratio estimator's normal one (Cochran, Sampling Techniques, section 2.11).
    """
    n, total = len(tops), sum(bottoms)
    value = sum(tops) / total
    if n < 2:
        return value, -math.inf, math.inf
    residual = sum((top - value * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))
    error = math.sqrt(residual * n / (n - 1)) / total
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return value, value - z * error, value + z * error
