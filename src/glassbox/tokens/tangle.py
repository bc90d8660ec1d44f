"""Long context from short documents: "Untie the Knots" (UtK, arXiv:2409.04774; dots.llm1, arXiv:2506.05767, 4.3).

The documents of a row are cut into parts and the parts of all of them shuffled, so that whoever reads on in a document
has to find its last part behind whatever stands between. Of a document that was cut

    <D> name </D> (head knot) text (tail knot)        is each part: a knot where it was cut
    <S> name <s> name ... </S>                        follows the part that stands last: its parts in their order

The name of a part is six random characters. Nothing can predict names, knots and where a part begins, so they are no
targets; the names of a summary are, and naming them is the task of backtracing. Tags and knots push as much text over
the end of the row as they take themselves.

The authors' released code keeps, for the last part of a row, its number in its document where its place in the row
belongs, so that the summary of that document can name wrong parts; here it is the place.

Letters: T tokens of a row.
"""

import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from glassbox.recipe.phases import Tangle
from glassbox.tokens.tokenizer import END_OF_TEXT, encode, reserved_ids, special_id

CHARACTERS = np.array(list(string.ascii_letters + string.digits))
NAME_LENGTH = 6


@dataclass(frozen=True)
class Marks:
    """How a phase tangles its rows: the ids of what is added, and how names and numbers are written in tokens."""

    settings: Tangle
    end: int
    """End of text: the last token of a document."""
    name: int
    """<D>"""
    end_name: int
    """</D>"""
    summary: int
    """<S>"""
    between: int
    """<s>"""
    end_summary: int
    """</S>"""
    knots: tuple[int, ...]
    """Tail of part 1, head of part 2, tail of part 2, head of part 3, ...; for spans: before and after the number of a
    part at its head, and the same at its tail."""
    spell: Callable[[str], list[int]]


def marks_of(tokenizer: Tokenizer, settings: Tangle) -> Marks:
    """The first reserved tokens: five tags, then knots. Raises RequestError when the tokenizer has too few."""
    name, end_name, summary, between, end_summary, *knots = reserved_ids(tokenizer, settings.tokens)
    tags = (special_id(tokenizer, END_OF_TEXT), name, end_name, summary, between, end_summary)
    return Marks(settings, *tags, tuple(knots), lambda text: encode(tokenizer, text))


def tangle(ids_T: NDArray[np.int64], marks: Marks, rng: np.random.Generator) -> NDArray[np.int64]:
    """The ids of packed documents, tangled: (T,) -> (T,)."""
    settings = marks.settings
    documents = [_parts(document, marks, rng) for document in _documents(ids_T, marks.end)]
    places = _places([len(parts) for parts in documents], settings.ordered, rng)
    row: list[list[int]] = [[]] * sum(map(len, documents))
    letters = CHARACTERS[rng.integers(len(CHARACTERS), size=(len(row), NAME_LENGTH))] if settings.backtrace else None
    for parts, own in zip(documents, places, strict=True):
        for place, part in zip(own, parts, strict=True):
            row[place] = part
        if letters is not None and len(parts) > 1:
            names = [marks.spell("".join(letters[place])) for place in own]
            for place, name in zip(own, names, strict=True):
                row[place] = [marks.name, *name, marks.end_name, *row[place]]
            row[max(own)] += [*_summary(names, marks)]
    return np.fromiter(chain.from_iterable(row), np.int64, len(ids_T))


def trained(ids_T: NDArray[np.int64], marks: Marks) -> NDArray[np.bool_]:
    """Which tokens of a tangled row are targets, (T,): not the first one, knots, openings of tags, nor what follows end
    of text, a knot, a tag that closes, or stands inside the name of a part."""
    knots = np.isin(ids_T, marks.knots)
    naming = np.cumsum(ids_T == marks.name) > np.cumsum(ids_T == marks.end_name)
    told_nothing = knots | naming | np.isin(ids_T, (marks.end_name, marks.end_summary, marks.end))
    found = ~(knots | np.isin(ids_T, (marks.name, marks.summary)))
    found[0] = False
    found[1:] &= ~told_nothing[:-1]
    return found


def _documents(ids_T: NDArray[np.int64], end: int) -> Iterator[list[int]]:
    """The documents of a row; the first may lack its beginning and the last its end."""
    ids, last = ids_T.tolist(), len(ids_T)
    stops = [stop + 1 for stop in np.flatnonzero(ids_T == end).tolist()]
    for start, stop in pairwise(sorted({0, *stops, last})):
        yield ids[start:stop]


def _parts(document: list[int], marks: Marks, rng: np.random.Generator) -> list[list[int]]:
    """A document cut, with its knots."""
    bounds = [0, *_cuts(len(document), marks.settings, rng), len(document)]
    parts = [document[start:stop] for start, stop in pairwise(bounds)]
    for c in range(len(parts) - 1):
        tail, head = _knot(c, marks)
        parts[c] += tail
        parts[c + 1][:0] = head
    return parts


def _cuts(length: int, settings: Tangle, rng: np.random.Generator) -> list[int]:
    """Where the parts of a document begin, but for the first; a document shorter than their number stays whole."""
    if settings.span:
        return [*range(settings.span, length, settings.span)]
    count = settings.parts[int(rng.random() * len(settings.parts))]
    if count == 1 or length < count:
        return []
    if settings.random_cuts:
        return sorted((1 + rng.choice(length - 1, count - 1, replace=False)).tolist())
    return [j * (length // count) for j in range(1, count)]


def _knot(c: int, marks: Marks) -> tuple[list[int], list[int]]:
    """What ends part `c` (from 0) and what begins the next."""
    if not marks.settings.span:
        return [marks.knots[2 * c]], [marks.knots[2 * c + 1]]
    before_head, after_head, before_tail, after_tail = marks.knots
    tail = [before_tail, *marks.spell(str(c)), after_tail]
    return tail, [before_head, *marks.spell(str(c + 1)), after_head]


def _places(counts: list[int], ordered: bool, rng: np.random.Generator) -> list[list[int]]:
    """For each document, the place in the row of each of its parts. The last part of the last one stays the last."""
    total = sum(counts) - 1
    shuffled = rng.permutation(total).tolist()
    places, start = [], 0
    for count in counts:
        own = shuffled[start : start + count]
        places.append(sorted(own) if ordered else own)
        start += count
    places[-1].append(total)
    return places


def _summary(names: list[list[int]], marks: Marks) -> Iterator[int]:
    """The tokens that name the parts of a document in their order."""
    yield marks.summary
    yield from names[0]
    for name in names[1:]:
        yield marks.between
        yield from name
    yield marks.end_summary
