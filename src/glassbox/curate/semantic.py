"""Documents alike in meaning: embeddings, clusters, cosine inside a cluster (SemDeDup, arXiv:2303.09540).

Of two documents of a cluster that are alike the earlier one in the order of priority stays.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.recipe.duplicates import SemanticDuplicates

WIDTH = 256


def embed(texts: pa.Array, settings: SemanticDuplicates) -> NDArray[np.float32]:
    """(documents,) large_string -> (documents, width) embeddings of length 1."""
    raise NotImplementedError


def semantic_copies(
    table: NDArray[np.float32],
    order: NDArray[np.int64],
    settings: SemanticDuplicates,
    seed: int,
    scratch: Path,
    memory: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each document the kept document it repeats (its own number if it is kept), and their cosine."""
    raise NotImplementedError
