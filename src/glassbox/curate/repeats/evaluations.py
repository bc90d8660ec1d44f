"""The n-grams of evaluation problems, read from the files of evaluation sets and the held-out problems of a recipe."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.curate.words import gram_hashes, word_hashes
from glassbox.errors import RequestError
from glassbox.recipe.duplicates import Decontaminate, EvaluationSet

FEWEST_WORDS = 8
"""A text of fewer words ("What is 2 + 3?") cannot be told from ordinary prose and is not looked for."""
OWNERS = 16
"""An n-gram that stands in more places of the sets (an instruction before every problem, a passage under many
questions) is credited to the first so many: bounds what one document can hit."""
HELD_OUT = "held_out"
"""Name of the set of a problems stage's held-out problems."""
_BITS = 16
"""Bits of the sieve for each n-gram: one n-gram of sixteen and more passes by chance."""
_IDS = ("id", "task_id", "question_id", "idx", "name")


@dataclass(frozen=True)
class SetFacts:
    """What is known of one evaluation set."""

    name: str
    items: int
    texts: int
    """Texts looked for: an item has one for each of the set's fields."""
    too_short: int
    """Texts of fewer than eight words, which are not looked for."""
    skipped: int
    """Lines and rows that could not be read."""


class GramTable(NamedTuple):
    """All n-grams of one length: sorted hashes; for hash k the places `starts[k]:starts[k + 1]`, each a text and the
    word of the text where the n-gram begins."""

    length: int
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    texts: NDArray[np.int32]
    words: NDArray[np.int32]


class Sieve(NamedTuple):
    """Which n-grams of the shortest length in use may stand in a text: `seen` has the bit hash >> shift set for all
    that do. One look at it spares a document the search for n-grams of every length."""

    length: int
    seen: NDArray[np.uint8]
    shift: int


@dataclass(frozen=True)
class Evaluations:
    """All evaluation texts as n-grams."""

    sets: tuple[SetFacts, ...]
    names: tuple[tuple[str, str], ...]
    """(set, item) of each text."""
    lengths: NDArray[np.int32]
    """Words of each text."""
    tables: tuple[GramTable, ...]
    sieve: Sieve
    share: float
    """Share of a text's words that a document must hold more of (`Decontaminate.share`)."""


def read_evaluations(settings: Decontaminate, problems: Path | None) -> Evaluations:
    """The sets of the recipe, in order, and the held-out problems in the folder of a problems stage, if there is one.

    A set whose files hold none of its fields raises RequestError; single broken lines are counted.
    """
    sets: list[SetFacts] = []
    names: list[tuple[str, str]] = []
    hashes: list[NDArray[np.uint64]] = []
    for one, files in _sets(settings, problems):
        items, skipped = _items(one, files)
        words = [_words(text) for _, text in items]
        long = [k for k, found in enumerate(words) if len(found) >= min(settings.ngram, FEWEST_WORDS)]
        names += [(one.name, items[k][0]) for k in long]
        hashes += [words[k] for k in long]
        sets.append(SetFacts(one.name, len(dict(items)), len(long), len(items) - len(long), skipped))
    lengths = np.array([len(words) for words in hashes], np.int32)
    size = np.minimum(lengths, settings.ngram)
    tables = tuple(_table(int(n), np.flatnonzero(size == n), hashes) for n in np.unique(size))
    sieve = _sieve(hashes, int(size.min(initial=settings.ngram)))
    return Evaluations(tuple(sets), tuple(names), lengths, tables, sieve, settings.share)


def _sets(settings: Decontaminate, problems: Path | None) -> Iterator[tuple[EvaluationSet, list[Path]]]:
    for one in settings.sets:
        yield one, one.files()
    if problems:
        path = problems / "held_out.jsonl"
        yield EvaluationSet(name=HELD_OUT, path=str(path), fields=("question", "solution")), [path]


def _items(one: EvaluationSet, files: list[Path]) -> tuple[list[tuple[str, str]], int]:
    """(item, text) for every field of every row, and how many rows could not be read."""
    found: list[tuple[str, str]] = []
    skipped = 0
    for path in files:
        for number, row in _rows(path, one.fields):
            if not isinstance(row, dict):
                skipped += 1
                continue
            name = next((str(row[key]) for key in _IDS if row.get(key) is not None), f"{path.name}:{number}")
            found += [(name, text) for field in one.fields if (text := _text(row.get(field)))]
    if not found:
        fields = " or ".join(f"'{field}'" for field in one.fields)
        raise RequestError(f"evaluation set '{one.name}': no row of {one.path} has a text in {fields}; set its fields")
    return found, skipped


def _rows(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    """Number from 1, and row; what cannot be read is None. A line of a text file is a row with the first field."""
    if path.name.endswith(".parquet"):
        yield from _parquet(path)
        return
    number = 0
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _text_row(line, fields) if ".txt" in path.suffixes else _json_row(line)
    except (OSError, EOFError):  # a damaged archive: what follows is lost
        yield number + 1, None


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pa.ArrowException):
        yield number + 1, None


def _json_row(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _text_row(line: bytes, fields: tuple[str, ...]) -> Any:
    return {fields[0]: line.decode("utf-8", "replace")}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(one for one in value if isinstance(one, str))
    return value if isinstance(value, str) else ""


def _words(text: str) -> NDArray[np.uint64]:
    return word_hashes(pa.array([text], pa.large_string()))[0]


def _table(length: int, texts: NDArray[np.int64], words: list[NDArray[np.uint64]]) -> GramTable:
    found = [gram_hashes(words[text], np.array([0, len(words[text])]), length)[0] for text in texts]
    counts = np.array([len(grams) for grams in found])
    hashes = np.concatenate(found)
    owners = np.repeat(texts, counts)
    begins = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(hashes, kind="stable")  # texts are in order already
    hashes, owners, begins = hashes[order], owners[order], begins[order]
    first = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
    few = np.arange(len(hashes)) - np.repeat(first, np.diff(np.append(first, len(hashes)))) < OWNERS
    starts = np.append(0, np.cumsum(few))[np.append(first, len(hashes))]
    return GramTable(length, hashes[first], starts, owners[few].astype(np.int32), begins[few].astype(np.int32))


def _sieve(words: list[NDArray[np.uint64]], length: int) -> Sieve:
    found = [gram_hashes(one, np.array([0, len(one)]), length)[0] for one in words]
    unique = np.unique(np.concatenate([np.empty(0, np.uint64), *found]))
    bits = max(int(len(unique) * _BITS).bit_length(), 3)
    seen = np.zeros(1 << bits, np.bool_)
    seen[(unique >> np.uint64(64 - bits)).astype(np.int64)] = True
    return Sieve(length, np.packbits(seen, bitorder="little"), 64 - bits)
