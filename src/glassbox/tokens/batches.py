"""Batches of packed rows: of a pretraining step, and of held-out text.

A row is a window of a source's token stream. It can hold the ends of documents, whole ones and beginnings; attention
stays inside each piece (`documents`), positions restart with it, and its first token has no label, for its predecessor
is not part of it. Rows that a phase tangles are the exception: see `tangle.py`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassbox.errors import RequestError
from glassbox.recipe.epochs import shares
from glassbox.recipe.phases import Phase
from glassbox.tokens.order import ALL, Mixture, Share, permute, round_keys
from glassbox.tokens.shards import TokenFolder, TokenShards
from glassbox.tokens.tangle import Marks, marks_of, tangle, trained
from glassbox.tokens.tokenizer import byte_lengths, decode, load_tokenizer

NO_LABEL = -100
PADDING = -1


@dataclass(frozen=True)
class Batch:
    """Packed rows, each array int64 of shape (rows, context)."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    """The target at each position, predicted from the position before (not shifted); -100: no loss."""
    positions: NDArray[np.int64]
    """Position in the document, from 0."""
    documents: NDArray[np.int64]
    """Which document of its row a token belongs to; padding belongs to none, -1."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one document inside a row."""

    id: str
    origin: str
    offset: int
    url: str
    first: int
    """First token in the row."""
    last: int
    """One past the last token in the row."""
    document_token: int
    """Where the piece starts in its document, in tokens."""
    text: str


@dataclass(frozen=True)
class RowTrace:
    """What a row of a step was made of."""

    row: int
    source: str
    window: int
    pieces: list[Piece]
    tangled: bool
    """Whether the row is these pieces cut, shuffled and marked (`tangle.py`); their places are those before that."""


class PretrainData:
    """The rows of every pretraining step, as a function of (tokens, phases, seed, step).

    Each phase draws windows of its context length from its mixture. A source is read once without repetition before it
    is read again in a new order; phases of the same context length go on where the last one left off, a phase with
    `reshuffle` begins in an order of its own. The tokens after a source's last whole window are not read.

    A step at or past `steps` is an earlier one read anew: `divmod(step, steps)` says how often and which; it has that
    step's shape, and rows from after its phase's end.
    """

    def __init__(self, tokens_folder: Path, phases: Sequence[Phase], seed: int):
        self._folder = TokenFolder(tokens_folder)
        self._seed = seed
        self.phases = tuple(phases)
        self._levels = [(number, level) for number, phase in enumerate(phases) for level in phase.levels]
        self._starts = list(accumulate((level.steps for _, level in self._levels), initial=0))
        self.steps = self._starts[-1]
        self._mixtures = [self._mixture(number) for number in range(len(phases))]
        sources = {source for mixture in self._mixtures for source in mixture.sources}
        self._shards = {source: self._folder.shard(source, "train") for source in sorted(sources)}
        self._before = self._draws_before()
        self._check_sizes()
        self._marks = [self._marks_in(phase) for phase in phases]

    def locate(self, step: int) -> tuple[int, int]:
        """Step (from 0) -> (number of its phase, step in the phase). Raises IndexError below 0."""
        place, number, _ = self._level(step)
        first = bisect_left(self._levels, number, key=lambda level: level[0])
        return number, place - self._starts[first]

    def rows(self, step: int) -> range:
        """The rows of a step, counted in its phase."""
        place, number, at = self._level(step)
        level, anew = self._levels[at][1], step // self.steps * self.phases[number].total_rows
        first = level.first + (place - self._starts[at]) * level.rows
        return range(first + anew, min(first + level.rows, level.last) + anew)

    def windows(self, step: int, share: Share = ALL) -> list[tuple[str, int]]:
        """(source, window) of each row of a step that a process reads."""
        number, rows = self.locate(step)[0], self.rows(step)
        chosen, draws = self._mixtures[number].draws(np.array([rows[i] for i in share.of(len(rows))], np.int64))
        windows = np.empty_like(draws)
        for n in np.unique(chosen).tolist():
            windows[chosen == n] = self._places(number, self._mixtures[number].sources[n], draws[chosen == n])
        names = [self._mixtures[number].sources[n] for n in chosen.tolist()]
        return list(zip(names, windows.tolist(), strict=True))

    def batch(self, step: int, share: Share = ALL) -> Batch:
        """The rows of a step that a process reads: (rows, context). A row that is tangled is one document."""
        number, rows = self.locate(step)[0], self.rows(step)
        marks, context = self._marks[number], self.phases[number].context
        places = [(self._shards[source], window * context, context) for source, window in self.windows(step, share)]
        batch = _stack(places, context, self._folder.eos_id)
        if marks is not None:
            for place, i in enumerate(share.of(len(rows))):
                rng = self._tangling(number, rows[i])
                if rng is not None:
                    batch.ids[place] = ids = tangle(batch.ids[place], marks, rng)
                    batch.labels[place] = np.where(trained(ids, marks), ids, NO_LABEL)
                    batch.positions[place], batch.documents[place] = np.arange(context), 0
        return batch

    def documents_at(self, step: int) -> list[RowTrace]:
        """The documents and text that each row of a step is made of."""
        number, rows = self.locate(step)[0], self.rows(step)
        context = self.phases[number].context
        tokenizer = load_tokenizer(self._folder.tokenizer_folder)
        traces = []
        for row, (source, window) in enumerate(self.windows(step)):
            pieces = [
                Piece(**place, text=decode(tokenizer, ids.tolist()))
                for place, ids in _pieces(self._shards[source], window * context, context)
            ]
            tangled = self._tangling(number, rows[row]) is not None
            traces.append(RowTrace(row, source, window, pieces, tangled))
        return traces

    def epochs(self) -> dict[str, float]:
        """How many times the phases read each shard: rows drawn x context / training tokens."""
        read = dict.fromkeys(self._shards, 0)
        for phase, mixture in zip(self.phases, self._mixtures, strict=True):
            for source, rows in zip(mixture.sources, mixture.counts, strict=True):
                read[source] += rows * phase.context
        return {source: tokens / len(self._shards[source]) for source, tokens in read.items()}

    def _marks_in(self, phase: Phase) -> Marks | None:
        """What a phase tangles with, if it does."""
        if phase.tangle is None:
            return None
        return marks_of(load_tokenizer(self._folder.tokenizer_folder), phase.tangle)

    def _tangling(self, number: int, row: int) -> np.random.Generator | None:
        """The chance by which a row of a phase is tangled; None: it is not."""
        settings = self.phases[number].tangle
        if settings is None:
            return None
        rng = np.random.default_rng(round_keys(self._seed, f"tangle phase {number} row {row}"))
        return rng if rng.random() < settings.share else None

    def _level(self, step: int) -> tuple[int, int, int]:
        """Step -> (the same step of the first reading, its phase, the number of its level)."""
        if step < 0:
            raise IndexError(f"step {step}: steps are counted from 0")
        place = step % self.steps
        at = bisect_right(self._starts, place) - 1
        return place, self._levels[at][0], at

    def _mixture(self, number: int) -> Mixture:
        phase = self.phases[number]
        self._folder.check((*phase.mixture, *phase.categories))
        weights = shares(phase, self._folder.train_sizes)
        if not weights:
            raise RequestError(f"phase '{phase.name}': its mixture and categories leave no text to read")
        return Mixture(weights, phase.total_rows, self._seed, f"phase {number}")

    def _places(self, number: int, source: str, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draws of a source in a phase -> windows of its shard."""
        phase = self.phases[number]
        order = f"phase {number} " if phase.reshuffle else ""
        count = len(self._shards[source]) // phase.context
        epoch, place = np.divmod(draws + self._before[number].get(source, 0), count)
        windows = np.empty_like(place)
        for n in np.unique(epoch).tolist():
            keys = round_keys(self._seed, f"{order}source {source} context {phase.context} epoch {n}")
            windows[epoch == n] = permute(place[epoch == n], count, keys)
        return windows

    def _draws_before(self) -> list[dict[str, int]]:
        """For each phase, the windows that earlier phases of its context length drew from each source."""
        before: list[dict[str, int]] = []
        drawn: dict[int, dict[str, int]] = {}
        for phase, mixture in zip(self.phases, self._mixtures, strict=True):
            so_far = {} if phase.reshuffle else drawn.setdefault(phase.context, {})
            before.append(dict(so_far))
            for source, count in zip(mixture.sources, mixture.counts, strict=True):
                so_far[source] = so_far.get(source, 0) + count
        return before

    def _check_sizes(self) -> None:
        for phase, mixture in zip(self.phases, self._mixtures, strict=True):
            for source in mixture.sources:
                if len(self._shards[source]) < phase.context:
                    raise RequestError(
                        f"phase '{phase.name}': source '{source}' has {len(self._shards[source])} training tokens, "
                        f"less than one window of context {phase.context}; shorten it or leave the source out (a "
                        "category: with 0 in `categories`)"
                    )


def held_out_rows(
    tokens_folder: Path, source: str, context: int, limit: int | None = None, rows: int = 16
) -> Iterator[tuple[Batch, int]]:
    """Batches over a source's held-out text, each with the number of UTF-8 bytes its labelled tokens stand for.

    Bits per byte = sum of the labelled tokens' negative log-likelihoods / ln 2 / sum of the bytes. The first token of
    each piece has no label, and neither has end-of-text: it stands for no bytes. `limit` keeps that many windows,
    evenly spaced; the last window is padded. Yields nothing when nothing is held out.
    """
    folder = TokenFolder(tokens_folder)
    shard = folder.shard(source, "held_out")
    lengths = byte_lengths(load_tokenizer(folder.tokenizer_folder))
    count = -(-len(shard) // context)
    kept = np.arange(count) if limit is None or limit >= count else np.arange(limit) * count // limit
    for first in range(0, len(kept), rows):
        places = [(shard, int(window) * context, context) for window in kept[first : first + rows]]
        batch = _stack(places, context, folder.eos_id)
        labels = np.where(batch.labels == folder.eos_id, NO_LABEL, batch.labels)
        yield Batch(batch.ids, labels, batch.positions, batch.documents), int(lengths[labels[labels != NO_LABEL]].sum())


def _stack(places: Sequence[tuple[TokenShards, int, int]], context: int, pad_id: int) -> Batch:
    """Rows from (shard, first token, length), padded to `context` where a shard ends."""
    ids = np.full((len(places), context), pad_id, dtype=np.int64)
    starts = np.zeros((len(places), context), dtype=bool)
    filled = np.zeros((len(places), context), dtype=bool)
    for row, (shard, first, length) in enumerate(places):
        stop = min(first + length, len(shard))
        ids[row, : stop - first] = shard.tokens[first:stop]
        starts[row, _piece_starts(shard, first, stop)] = True
        starts[row, stop - first : stop - first + 1] = True
        filled[row, : stop - first] = True
    return packed(ids, starts, filled, filled)


def packed(
    ids: NDArray[np.int64], starts: NDArray[np.bool_], labelled: NDArray[np.bool_], filled: NDArray[np.bool_]
) -> Batch:
    """A batch from ids, where pieces (and padding) start, which tokens may carry a label, and which are no padding,
    all (rows, context)."""
    column = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    positions = column - np.maximum.accumulate(np.where(starts, column, 0), axis=1)
    labels = np.where(labelled & ~starts, ids, NO_LABEL)
    return Batch(ids, labels, positions, np.where(filled, np.cumsum(starts, axis=1) - 1, PADDING))


def _piece_starts(shard: TokenShards, first: int, stop: int) -> NDArray[np.int64]:
    """Where pieces start in tokens [first, stop), relative to `first`: at 0 and at each document's start."""
    low, high = np.searchsorted(shard.index, [first + 1, stop])
    return np.concatenate([[0], shard.index[low:high] - first])


def _pieces(shard: TokenShards, first: int, context: int) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
    stop = min(first + context, len(shard))
    starts = _piece_starts(shard, first, stop)
    for begin, end in zip(starts, [*starts[1:], stop - first], strict=True):
        number = shard.document_at(first + int(begin))
        row = shard.document(number)
        place = {name: row[name] for name in ("id", "origin", "offset", "url")}
        place |= {"first": int(begin), "last": int(end), "document_token": int(first + begin - shard.index[number])}
        yield place, shard.tokens[first + begin : first + end]
