"""The line model of clutter applied to documents: lines that it scores low are cut, with smoothing and code spared.

After dots.llm1 (arXiv:2506.05767, app. C.3): a model scores every line with its context, and lines below a threshold
go. A short kept line alone between dropped ones goes with them; a single dropped line within kept ones stays if its
score is near the threshold.
"""

from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.edits import Cut, Edited
from glassbox.curate.models.boosting import Trees
from glassbox.curate.models.clutter_features import FEATURES, line_features
from glassbox.errors import RequestError

MODEL = "clutter.npz"
RULE = "clutter"
SHORT = 40
"""Bytes below which a kept line between dropped ones is short."""
AMONG = 5
"""Kept lines around a single dropped one that keep it, if its score is in doubt."""
DOUBT = 0.5
"""Share of the threshold from which on a score is in doubt. Without this a model undoes itself: what an extractor
leaves of clutter is mostly single lines."""


class ClutterModel(NamedTuple):
    """A trained line model."""

    trees: Trees


def load(folder: Path) -> ClutterModel:
    """The model that a stage of kind clutter left."""
    try:
        trees = Trees.load(folder / MODEL)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{folder / MODEL} holds no line model of clutter: {error}") from error
    if trees.feature.size and int(trees.feature.max()) >= FEATURES:
        raise RequestError(f"{folder / MODEL} was trained by another version; train it again")
    return ClutterModel(trees)


def edit(texts: pa.Array, model: ClutterModel, threshold: float) -> Edited:
    """A batch of documents without the lines that are scored below `threshold`; blank lines stay."""
    if not len(texts):
        return texts, []
    features, bounds, places, fenced = line_features(texts)
    keep = decide(model.trees.score(features), bounds, places, fenced, threshold)
    cuts: list[list[Cut]] = [[] for _ in range(len(texts))]
    if keep.all():
        return texts, cuts
    data, offsets = utf8_buffer(texts)
    document = np.searchsorted(bounds, np.arange(len(keep)), side="right") - 1
    for line in np.flatnonzero(~keep).tolist():
        start, end = places[line]
        text = data[start:end].tobytes().decode()
        cuts[document[line]].append(Cut(line - int(bounds[document[line]]), -1, RULE, text))
    out, ends = np.empty(offsets[-1] - offsets[0], np.uint8), np.zeros(len(texts) + 1, np.int64)
    _without(data, offsets, keep, places, bounds, out, ends)
    buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(out[: ends[-1]].tobytes())]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers), cuts


def decide(
    scores: NDArray[np.float32],
    bounds: NDArray[np.int64],
    places: NDArray[np.int64],
    fenced: NDArray[np.bool_],
    threshold: float,
) -> NDArray[np.bool_]:
    """Whether each line (lines,) stays: by score, then smoothed among its neighbours; code between fences stays."""
    raw = (scores >= threshold) | fenced
    keep = raw.copy()
    _smooth(raw, scores >= DOUBT * threshold, bounds, places, keep)
    return keep | fenced


@numba.njit(nogil=True, cache=True)
def _smooth(raw, doubtful, bounds, places, keep) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(bounds) - 1):
        first, last = bounds[d], bounds[d + 1]
        for i in range(first + 1, last - 1):
            if raw[i - 1] != raw[i + 1] or raw[i] == raw[i - 1]:
                continue
            if raw[i]:
                keep[i] = places[i, 1] - places[i, 0] >= SHORT
                continue
            around = 0
            j = i - 1
            while j >= first and raw[j] and around < AMONG:
                around += 1
                j -= 1
            j = i + 1
            while j < last and raw[j] and around < AMONG:
                around += 1
                j += 1
            keep[i] = around >= AMONG and doubtful[i]


@numba.njit(nogil=True, cache=True)
def _without(data, offsets, keep, places, bounds, out, ends) -> None:  # type: ignore[no-untyped-def]
    """Copies what stays: the lines of a text are those between line feeds, and some of them are left out."""
    o = 0
    for d in range(len(offsets) - 1):
        begun = o
        line, start = bounds[d], offsets[d]
        written = False
        while start <= offsets[d + 1]:
            end = start
            while end < offsets[d + 1] and data[end] != 10:
                end += 1
            counted = line < bounds[d + 1] and places[line, 0] == start and end > start
            if not counted or keep[line]:
                if written:
                    out[o] = 10
                    o += 1
                written = True
                for i in range(start, end):
                    out[o] = data[i]
                    o += 1
            line += counted
            start = end + 1
        ends[d] = begun
    ends[len(offsets) - 1] = o
