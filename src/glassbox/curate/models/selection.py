"""The score from which a given share of the documents stays (DCLM keeps the best 10 percent, arXiv:2406.11794)."""

import numpy as np
from numpy.typing import NDArray


def threshold_for_share(scores: NDArray[np.floating], sizes: NDArray[np.int64], share: float) -> float:
    """The largest score such that documents (n,) that reach it hold at least `share` of the bytes.

    Documents of equal score stay or go together. Those whose score is NaN have no part in it.
    """
    known = ~np.isnan(scores)
    scores, sizes = scores[known], sizes[known]
    if not len(scores):
        return float("-inf")
    order = np.argsort(-scores, kind="stable")
    held = np.cumsum(sizes[order])
    # The tolerance lets 0.1 of 10 equal documents be one of them, whatever the rounding of 0.1.
    last = int(np.searchsorted(held, share * held[-1] * (1 - 1e-12)))
    return float(scores[order[min(last, len(order) - 1)]])
