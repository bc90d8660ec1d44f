"""Passages that stand in several documents or places."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassbox.curate.near import Texts
from glassbox.recipe.duplicates import Substrings


def repeated_passages(
    texts: Texts, order: NDArray[np.int64], settings: Substrings, scratch: Path, memory: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(document, start, end) of what is to be cut, in characters of the text, merged, in order."""
    raise NotImplementedError
