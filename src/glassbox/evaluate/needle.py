"""Needle in a haystack: does a model find what stands anywhere in a long text?

A row of exactly `length` tokens is what begins a text, held-out documents with the needle at a depth, a question, and
the answer:

    ... documents | The magic number is 48213. | documents ... | What is the magic number? The magic number is | 48213

The model is scored in two ways: `exact`, the answer is what it writes (greedy decoding); `choice`, the answer is the
likeliest of some numbers of as many digits, which a small model may manage long before, and of which one in so many is
right by chance.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from glassbox.errors import RequestError
from glassbox.evaluate.intervals import wilson
from glassbox.generate.continuations import continuation_logprobs
from glassbox.generate.engine import Engine, Request
from glassbox.generate.replies import seed_for, start_ids
from glassbox.model.folder import LoadedModel
from glassbox.recipe.needle import Needle
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import decode, encode, load_tokenizer

log = logging.getLogger("glassbox")

NEEDLE = "\nThe magic number is {value}.\n"
QUESTION = "\n\nWhat is the magic number? The magic number is"
ANSWER = " {value}"
CACHED_TOKENS = 1 << 14
"""Tokens of rows that are decoded side by side, but one row at least."""


@dataclass(frozen=True)
class Row:
    """One text with its needle and its question."""

    prompt: list[int]
    answers: list[list[int]]
    """The tokens of each number to choose among; the first is the hidden one."""


@dataclass(frozen=True)
class Cell:
    """What came of the rows of one length and depth."""

    length: int
    depth: float
    n: int
    exact: int
    """Rows whose number the model wrote."""
    choice: int
    """Rows whose number the model found likeliest."""


Found = tuple[bool, bool]
"""Whether a row's number was written, and whether it was the likeliest."""


def cells(
    config: Needle, loaded: LoadedModel, haystack: "Haystack", seed: int, judge: Callable[[Sequence[Row]], list[Found]]
) -> Iterator[Cell]:
    """Every length that the model has room for and every depth, judged. The rows follow from the seed alone."""
    for length in config.lengths:
        if length > loaded.context:
            log.warning("no needles at %s tokens: the model's context is %s", f"{length:,}", f"{loaded.context:,}")
            continue
        for depth in config.depths:
            seeds = (seed_for(seed, "needle", length, depth, sample) for sample in range(config.samples))
            found = judge([row_of(config, loaded, haystack, length, depth, one) for one in seeds])
            exact, choice = zip(*found, strict=True)
            yield Cell(length, depth, len(found), sum(exact), sum(choice))


def judged(loaded: LoadedModel, rows: Sequence[Row]) -> list[Found]:
    """What the model makes of rows of one length."""
    room = max(len(row.prompt) + max(map(len, row.answers)) for row in rows)
    engine = Engine(loaded.model, slots=max(1, CACHED_TOKENS // room), capacity=room)
    replies = engine.generate([Request(row.prompt, len(row.answers[0]), temperature=0.0) for row in rows])
    found = []
    for row, reply in zip(rows, replies, strict=True):
        likely = continuation_logprobs(loaded.model, row.prompt, row.answers)
        written, right = (decode(loaded.tokenizer, ids) for ids in (reply.ids, row.answers[0]))
        found.append((written == right, max(likely[1:]) < likely[0]))
    return found


def row_of(config: Needle, loaded: LoadedModel, haystack: "Haystack", length: int, depth: float, seed: int) -> Row:
    """A row that has `length` tokens with its longest answer. Raises RequestError where there is no room for text."""
    rng = np.random.default_rng(seed)
    least = 10 ** (config.digits - 1)
    numbers = least + rng.choice(9 * least, config.choices, replace=False)
    question, answers = _asked(loaded, [str(number) for number in numbers])
    needle = encode(loaded.tokenizer, NEEDLE.format(value=numbers[0]))
    start = start_ids(loaded)
    room = length - len(start) - len(needle) - len(question) - max(map(len, answers))
    if room < 1:
        raise RequestError(f"needle.lengths: {length} tokens have no room for needle, question and text; take more")
    text = list(islice(haystack.tokens(int(rng.integers(len(haystack)))), room))
    place = round(depth * room)
    return Row([*start, *text[:place], *needle, *text[place:], *question], answers)


def _asked(loaded: LoadedModel, values: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The question's tokens and each answer's. They are encoded together, for a tokenizer may join what stands at the
    border: the question is what all of them begin with."""
    whole = [encode(loaded.tokenizer, QUESTION + ANSWER.format(value=value)) for value in values]
    question = encode(loaded.tokenizer, QUESTION)
    shared = next(
        (i for i, token in enumerate(question) if any(ids[i : i + 1] != [token] for ids in whole)), len(question)
    )
    return question[:shared], [ids[shared:] for ids in whole]


class Haystack:
    """The held-out documents of a tokens artefact, in a model's own tokens."""

    def __init__(self, tokens_folder: Path, loaded: LoadedModel):
        folder = TokenFolder(tokens_folder)
        self._tokenizer, self._loaded, self._end = load_tokenizer(folder.tokenizer_folder), loaded, folder.eos_id
        shards = [folder.shard(source, "held_out") for source in folder.sources]
        self._places = [(shard, number) for shard in shards for number in range(len(shard.index) - 1)]
        if not self._places:
            raise RequestError(
                f"{tokens_folder}: needles need held-out text; set held_out of the tokenize stage above 0"
            )

    def __len__(self) -> int:
        return len(self._places)

    def tokens(self, first: int) -> Iterator[int]:
        """The tokens of the documents from number `first` on, again from the first after the last, without end."""
        while True:
            shard, number = self._places[first % len(self._places)]
            ids = shard.tokens[shard.index[number] : shard.index[number + 1]]
            text = decode(self._tokenizer, ids[ids != self._end].tolist())
            yield from encode(self._loaded.tokenizer, f"{text}\n\n")
            first += 1


def found_shares(cells: Sequence[Cell], confidence: float) -> dict[str, tuple[float, float, float, int]]:
    """(value, low, high, n) of each way of scoring, over all rows of a model; empty if there are none."""
    n = sum(cell.n for cell in cells)
    counts = {"needle_exact": sum(cell.exact for cell in cells), "needle_choice": sum(cell.choice for cell in cells)}
    return {metric: (right / n, *wilson(right, n, confidence), n) for metric, right in counts.items() if n}


def record(config: Needle, found: dict[str, list[Cell]]) -> dict[str, Any]:
    """What `needle.json` holds: the settings, the chance of a right choice, and each model's cells."""
    return {
        "protocol": {**config.model_dump(mode="json"), "needle": NEEDLE.strip(), "question": QUESTION.strip()},
        "chance": 1 / config.choices,
        "models": {name: [asdict(cell) for cell in cells] for name, cells in found.items()},
    }


def find(config: Needle, loaded: LoadedModel, tokens_folder: Path, seed: int) -> Iterator[Cell]:
    """Hide needles in held-out text and have the model look for them, cell by cell."""
    return cells(config, loaded, Haystack(tokens_folder, loaded), seed, partial(judged, loaded))
