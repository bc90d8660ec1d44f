"""Texts of documents that a decision needs again, read from disk in batches."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Texts = Callable[[NDArray[np.int64]], Iterator[tuple[int, str]]]
"""Ascending document numbers -> each of them with its text, read from disk."""
_DOCUMENTS, _CHARACTERS = 256, 1 << 22


def batched(texts: Texts, documents: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """The documents, which are ascending, and their texts (large_string) in batches of some megabytes."""
    numbers: list[int] = []
    held: list[str] = []
    size = 0
    for number, text in texts(documents) if len(documents) else ():
        numbers.append(number)
        held.append(text)
        size += len(text)
        if len(held) == _DOCUMENTS or size >= _CHARACTERS:
            yield np.array(numbers), pa.array(held, pa.large_string())
            numbers, held, size = [], [], 0
    if held:
        yield np.array(numbers), pa.array(held, pa.large_string())
