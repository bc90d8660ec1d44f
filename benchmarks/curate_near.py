"""Near duplicates for `curate.py`, each side's way: which documents to remove, without a check of the pairs that meet.

16 bands of 8 rows over 5-grams of words. See `curate_sides.py` for what a side is.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate_sides import Item, Run, columns

BANDS, ROWS, GRAM = 16, 8, 5


def near_glassbox() -> Run:
    import numpy as np

    from glassbox.curate.repeats.minhash import signatures
    from glassbox.curate.repeats.near import near_copies
    from glassbox.recipe.duplicates import NearDuplicates

    settings = NearDuplicates(unit="words", ngram=GRAM, bands=BANDS, rows=ROWS, check="none")

    def run(items: list[Item]) -> list[int]:
        table = np.concatenate([signatures(column, settings) for column in columns(items)])

        def texts(numbers: Any) -> Iterator[tuple[int, str]]:
            return ((number, items[number]["text"]) for number in numbers.tolist())

        with tempfile.TemporaryDirectory() as scratch:
            kept, _ = near_copies(table, np.arange(len(items)), settings, texts, Path(scratch), 1 << 26)
        return np.flatnonzero(kept != np.arange(len(items))).tolist()

    return run


def near_datatrove() -> Run:
    import struct

    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS, n_grams=GRAM)

    def run(items: list[Item]) -> list[int]:
        with tempfile.TemporaryDirectory() as folder:
            parts = [f"{folder}/{name}" for name in ("signatures", "buckets", "remove")]
            documents = (Document(text=item["text"], id=str(n)) for n, item in enumerate(items))
            MinhashDedupSignature(parts[0], config).run(documents, 0, 1)
            for bucket in range(BANDS):
                MinhashDedupBuckets(parts[0], parts[1], config=config).run(None, bucket, BANDS)
            MinhashDedupCluster(parts[1], parts[2], config).run(None, 0, 1)
            path = Path(parts[2], "000000.remove")
            data = path.read_bytes() if path.exists() else b""
        return [number for (number,) in struct.iter_unpack("<I", data)]

    return run


def shingles(text: str) -> set[str]:
    """5-grams of words, for peers that take sets of strings."""
    words = [word for word in re.split(r"\W", text.lower()) if word]
    return {" ".join(words[n : n + GRAM]) for n in range(max(1, len(words) - GRAM + 1))}


def near_rensa() -> Run:
    from rensa import RMinHash, RMinHashLSH

    def run(items: list[Item]) -> list[int]:
        index, removed = RMinHashLSH(0.8, BANDS * ROWS, BANDS), []
        for n, item in enumerate(items):
            signature = RMinHash(BANDS * ROWS, 42)
            signature.update(list(shingles(item["text"])))
            if index.query(signature):
                removed.append(n)
            index.insert(n, signature)
        return removed

    return run


def near_text_dedup() -> Run:
    import numpy as np
    from text_dedup.minhash import embed_func
    from text_dedup.utils import sha1_hash

    prime, largest, draw = np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1), np.random.RandomState(42)
    settings = {
        "num_perm": BANDS * ROWS,
        "ngram_size": GRAM,
        "min_length": 1,
        "hashranges": [(n * ROWS, n * ROWS + ROWS) for n in range(BANDS)],
        "permutations": tuple(draw.randint(1, prime, BANDS * ROWS, dtype=np.uint64) for _ in range(2)),
        "hash_func": lambda data: sha1_hash(data, d=32),
        "dtype": np.uint64,
        "max_hash": largest,
        "modulo_prime": prime,
    }
    return lambda items: first_seen(
        embed_func(item["text"], n, **settings)["__signatures__"] for n, item in enumerate(items)
    )


def near_daft() -> Run:
    import daft

    def run(items: list[Item]) -> list[int]:
        frame = daft.from_pydict({"text": [item["text"] for item in items]})
        made = frame.select(frame["text"].minhash(num_hashes=BANDS * ROWS, ngram_size=GRAM)).to_pydict()["text"]
        return first_seen([tuple(row[n : n + ROWS]) for n in range(0, BANDS * ROWS, ROWS)] for row in made)

    return run


def first_seen(rows: Any) -> list[int]:
    """Documents of which any band was seen before."""
    seen: list[set] = [set() for _ in range(BANDS)]
    removed = []
    for n, bands in enumerate(rows):
        if any(band in known for band, known in zip(bands, seen, strict=False)):
            removed.append(n)
        for band, known in zip(bands, seen, strict=False):
            known.add(band)
    return removed
