"""What the tests of duplicates share: words and similarity in plain Python, texts by number, real paragraphs."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from glassbox.curate.repeats.texts import Texts

MEMORY = 1 << 26
WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|(?:(?![\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff_])\w)+"
)


def words(text: str) -> list[str]:
    return [word for word in WORD.findall(text.lower()) if word.isalnum()]


def shingles(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    found = words(text)
    return frozenset(tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))) if found else frozenset()


def jaccard(one: frozenset, other: frozenset) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common) if common else 0.0


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def reader(texts: list[str]) -> Texts:
    """Texts as the stage reads them again; numbers must ascend."""

    def read(documents: np.ndarray) -> Iterator[tuple[int, str]]:
        assert (np.diff(documents) > 0).all()
        return ((number, texts[number]) for number in documents.tolist())

    return read


def shuffled(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(new number -> old, old number -> new) of another numbering of the documents."""
    old = np.random.default_rng(seed).permutation(count)
    return old, np.argsort(old)


def paragraphs(data: Path, *books: str) -> list[str]:
    """Paragraphs of 300 characters and more of several editions of the same books."""
    found = []
    for book in books:
        for path in sorted((data / "gutenberg_editions" / book).glob("*.gz")):
            text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
            found += [one for one in re.split(r"\r?\n\s*\r?\n", text) if len(one) >= 300]
    return found
