"""How good a classifier is on texts it has not seen: figures as plain numbers, ready for JSON."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Bins of the calibration table."""


def of_classes(scores: NDArray[np.floating], truth: NDArray[np.integer], names: tuple[str, ...]) -> dict[str, Any]:
    """Of probabilities (n, classes) against true classes (n,).

    accuracy; macro_f1 over classes that occur; per class precision, recall, F1 and AUC (one against the rest; null
    where one side is empty); confusion (rows true); calibration: of the most probable class's probability, in bins,
    the mean, how often it is right, and the expected calibration error (mean distance of the two).
    """
    guess = scores.argmax(1)
    k = len(names)
    confusion = np.bincount(truth * k + guess, minlength=k * k).reshape(k, k)
    hit, true, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = _ratio(2 * hit, true + said)
    classes = {
        name: {
            "texts": int(true[c]),
            "precision": _round(_ratio(hit, said)[c]),
            "recall": _round(_ratio(hit, true)[c]),
            "f1": _round(f1[c]),
            "auc": auc(scores[:, c], truth == c),
        }
        for c, name in enumerate(names)
    }
    top = scores.max(1)
    return {
        "accuracy": _round(hit.sum() / max(1, len(truth))),
        "macro_f1": _round(f1[true > 0].mean()) if len(truth) else 0.0,
        "classes": classes,
        "confusion": confusion.tolist(),
        **calibration(top, guess == truth),
    }


def of_scores(scores: NDArray[np.floating], truth: NDArray[np.floating], names: tuple[str, ...]) -> dict[str, Any]:
    """Of scores (n, names) against true ones, NaN where there is none: mean absolute error, that of always saying the
    mean, and Pearson's correlation (null where either side is constant)."""
    found = {}
    for c, name in enumerate(names):
        known = ~np.isnan(truth[:, c])
        said, true = scores[known, c].astype(np.float64), truth[known, c].astype(np.float64)
        varied = len(true) > 1 and said.std() > 0 and true.std() > 0
        found[name] = {
            "texts": int(known.sum()),
            "mean_absolute_error": _round(np.abs(said - true).mean()) if len(true) else None,
            "error_of_the_mean": _round(np.abs(true - true.mean()).mean()) if len(true) else None,
            "correlation": _round(np.corrcoef(said, true)[0, 1]) if varied else None,
        }
    return {"scores": found}


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """The chance that a positive scores above a negative, ties counted half; None without both."""
    ups, downs = int(positive.sum()), int((~positive).sum())
    if not ups or not downs:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return _round((ranks[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def calibration(probability: NDArray[np.floating], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Bins of equal width: texts, mean probability, share that is right; and the expected calibration error."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows, error = [], 0.0
    for b in range(BINS):
        inside = bins == b
        if inside.any():
            mean, share = float(probability[inside].mean()), float(right[inside].mean())
            error += abs(mean - share) * inside.mean()
            rows.append({"texts": int(inside.sum()), "probability": _round(mean), "right": _round(share)})
    return {"calibration": rows, "calibration_error": _round(error)}


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _round(value: Any) -> float:
    return round(float(value), 4)
