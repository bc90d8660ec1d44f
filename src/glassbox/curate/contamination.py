"""Decontamination: documents that hold a word n-gram of an evaluation problem.

After GPT-3 (arXiv:2005.14165, appendix C): any 13-gram in common is a hit. Both the question and the written-out
solution of each held-out problem are looked for. A text of fewer words than an n-gram is looked for whole if it has at
least eight; a shorter one ("What is 2 + 3?") cannot be told from ordinary prose and is counted instead.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.words import gram_hashes, word_hashes

FEWEST_WORDS = 8


@dataclass(frozen=True)
class ProblemGrams:
    """The n-grams of all evaluation problems: for each length in words, sorted hashes and the problem of each."""

    ids: tuple[str, ...]
    grams: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]]
    too_short: int
    """Questions and solutions of fewer than eight words, which are not looked for."""


def problem_grams(folder: Path, size: int) -> ProblemGrams:
    """Read `held_out.jsonl` of a problems artefact."""
    with (folder / "held_out.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    texts = [(number, row[key]) for number, row in enumerate(rows) for key in ("question", "solution") if row.get(key)]
    words, bounds = word_hashes(pa.array([text for _, text in texts], pa.large_string()))
    found: dict[int, list[tuple[NDArray[np.uint64], int]]] = defaultdict(list)
    too_short = 0
    for k, (number, _) in enumerate(texts):
        count = int(bounds[k + 1] - bounds[k])
        if count < min(size, FEWEST_WORDS):
            too_short += 1
            continue
        grams, _ = gram_hashes(words, bounds[k : k + 2], min(size, count))
        found[min(size, count)].append((grams, number))
    tables = {}
    for length, parts in sorted(found.items()):
        hashes = np.concatenate([grams for grams, _ in parts])
        owners = np.concatenate([np.full(len(grams), number) for grams, number in parts])
        unique, first = np.unique(hashes, return_index=True)
        tables[length] = (unique, owners[first])
    return ProblemGrams(tuple(str(row["id"]) for row in rows), tables, too_short)


def problem_hits(words: NDArray[np.uint64], bounds: NDArray[np.int64], problems: ProblemGrams) -> list[list[int]]:
    """For each document the problems (by number) whose n-grams it holds, one entry for each n-gram found."""
    hits: list[list[int]] = [[] for _ in range(len(bounds) - 1)]
    for length, (table, owners) in problems.grams.items():
        grams, places = gram_hashes(words, bounds, length)
        at = np.minimum(np.searchsorted(table, grams), len(table) - 1)
        for place in np.flatnonzero(table[at] == grams):
            hits[int(np.searchsorted(places, place, "right")) - 1].append(int(owners[at[place]]))
    return hits
