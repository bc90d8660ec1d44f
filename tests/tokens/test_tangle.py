"""Untie-the-Knots against a plain reading of the published pseudo-code, and what must hold of every tangled row."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.phases import Phase, Tangle
from glassbox.recipe.text import TokenizerStage, TokenizeStage
from glassbox.tokens import tokenize_stage, tokenizer_stage
from glassbox.tokens.batches import NO_LABEL, PretrainData
from glassbox.tokens.order import Share
from glassbox.tokens.tangle import Marks, marks_of, tangle, trained
from glassbox.tokens.tokenizer import load_tokenizer

END, NAME, END_NAME, SUMMARY, BETWEEN, END_SUMMARY, KNOTS = 0, 1, 2, 3, 4, 5, tuple(range(6, 16))
TEXT = 1000
"""Ids of text are at least this; those of names lie between."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def spell(text: str) -> list[int]:
    """Two characters to a token, so that names are three tokens and long numbers two."""
    return [16 + sum(ord(letter) for letter in text[i : i + 2]) for i in range(0, len(text), 2)]


def marks(settings: Tangle) -> Marks:
    return Marks(settings, END, NAME, END_NAME, SUMMARY, BETWEEN, END_SUMMARY, KNOTS[: settings.knots], spell)


def published(text, rng, settings: Tangle, knots, quirk=False):
    """The pseudo-code of the released data set class, line by line; with `quirk`, its slip with the last document."""
    probabilities = [settings.parts.count(n + 1) / len(settings.parts) for n in range(max(settings.parts))]
    docs, doc = [], []
    for token in text:
        doc.append(int(token))
        if token == END:
            docs.append(doc)
            doc = []
    if doc:
        docs.append(doc)
    segmented = []
    for doc in docs:
        n = 4 if settings.span else 1 + int(rng.choice(len(probabilities), p=probabilities))
        if settings.span:
            cuts = list(range(settings.span, len(doc), settings.span))
        elif len(doc) < n:
            cuts = []
        elif settings.random_cuts:
            cuts = sorted(rng.choice(range(1, len(doc)), n - 1, replace=False).tolist())
        else:
            cuts = [len(doc) // n * j for j in range(1, n)]
        parts = []
        for c, (start, stop) in enumerate(pairwise([0, *cuts, len(doc)])):
            part = doc[start:stop]
            if c > 0:
                part = ([knots[0], *spell(str(c)), knots[1]] if settings.span else [knots[2 * c - 1]]) + part
            if c < len(cuts):
                part = part + ([knots[2], *spell(str(c)), knots[3]] if settings.span else [knots[2 * c]])
            parts.append(part)
        segmented.append(parts)
    counts = [len(parts) for parts in segmented]
    counts[-1] -= 1
    m = sum(counts)
    pos = np.arange(m)
    rng.shuffle(pos)
    slots, order, start = [], [None] * m, 0
    for d, count in enumerate(counts):
        stretch = pos[start : start + count].tolist()
        slots.append(sorted(stretch) if settings.ordered else stretch)
        for c, slot in enumerate(slots[-1]):
            order[slot] = (d, c)
        start += count
    order.append((len(docs) - 1, counts[-1]))
    slots[-1].append(counts[-1] if quirk else m)
    if settings.backtrace:
        ids = [spell("".join(rng.choice(list(LETTERS), size=6))) for _ in range(m + 1)]
    out = []
    for slot, (d, c) in enumerate(order):
        if not settings.backtrace or len(slots[d]) == 1:
            out += segmented[d][c]
            continue
        out += [NAME, *ids[slot], END_NAME, *segmented[d][c]]
        if slot == max(slots[d]):
            out.append(SUMMARY)
            for number, other in enumerate(slots[d]):
                out += ([BETWEEN] if number else []) + ids[other]
            out.append(END_SUMMARY)
    return out[: len(text)], out


def published_mask(row, knots):
    """Loss mask (inputs row[:-1], labels row[1:]) as the reference sets it, token by token; end of text masked."""
    tokens, labels = row[:-1], row[1:]
    mask = [token != END for token in tokens]
    inside = False
    for j, (token, label) in enumerate(zip(tokens, labels, strict=True)):
        inside = inside or token == NAME
        if inside or token in knots or label in knots or label in (NAME, SUMMARY) or token == END_SUMMARY:
            mask[j] = False
        inside = inside and token != END_NAME
    return mask


def generator(number: int) -> np.random.Generator:
    """The reference's own: seed 47."""
    return np.random.Generator(np.random.MT19937(47 * 100_000 + number))


def packed_row(rng, length, mean):
    row = rng.integers(TEXT, TEXT + 500, size=length)
    row[rng.random(length) < 1 / mean] = END
    return row


SETTINGS = [
    Tangle(parts=parts, span=span, random_cuts=random_cuts, ordered=ordered, backtrace=backtrace)
    for parts, span in [((2, 3), None), ((1, 2, 2, 5), None), ((2,), 3)]
    for random_cuts in (True, False)
    for ordered in (True, False)
    for backtrace in (True, False)
]


def test_the_reference_example():
    """The documented row of three documents; the reference's generator number 2857 happens to draw its cuts."""
    a, b, c = [101, 102, 103, 104, 105, 106, END], [201, 202, 203, END], [301, 302, 303, 304]
    k0, k1 = KNOTS[:2]
    settings = Tangle(parts=(2,), backtrace=False)
    rng = generator(2857)
    rng.random()  # the choice of a vector
    row = tangle(np.array([*a, *b, *c]), marks(settings), rng).tolist()
    assert row == [b[0], k0, *a[:5], k0, k1, a[5], END, c[0], k0, k1, b[1]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_and_masks_equal_the_published_pseudo_code(settings):
    own, quirks = marks(settings), 0
    for case in range(40):
        rng = np.random.default_rng(case)
        row = packed_row(rng, int(rng.integers(1, 120)), int(rng.integers(1, 30)))
        found = tangle(row, own, generator(case)).tolist()
        expected, _ = published(row, generator(case), settings, own.knots)
        assert found == expected
        mask = trained(np.array(found), own).tolist()
        assert mask == [False, *published_mask(found, own.knots)]
        quirks += published(row, generator(case), settings, own.knots, quirk=True)[0] != expected
    assert (quirks > 0) == settings.backtrace  # the slip is seen in summaries alone


def unravelled(row, knots):
    """The documents that whole summaries tell of, and those that were not cut."""
    parts, told, place = {}, [], 0

    def until(*ends):
        """The tokens up to one of `ends`, and that one if there is one in the rest of the row."""
        nonlocal place
        start = place
        while place < len(row) and row[place] not in ends:
            place += 1
        place += 1
        return row[start : place - 1], row[place - 1 : place]

    while place < len(row):
        if row[place] == NAME:
            place += 1
            name = tuple(until(END_NAME)[0])
            place += row[place : place + 1] in [[knot] for knot in knots[1::2]]
            text, end = until(END, *knots[::2])
            parts[name] = text + [END] * (end == [END])
        elif row[place] == SUMMARY:
            names, end = [], [BETWEEN]
            place += 1
            while end == [BETWEEN]:
                name, end = until(BETWEEN, END_SUMMARY)
                names.append(tuple(name))
            if end:
                told.append([token for name in names for token in parts[name]])
        else:
            text, end = until(END)
            told.append(text + end)
    return told


@given(
    lengths=st.lists(st.integers(0, 40), max_size=8),
    parts=st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda parts: max(parts) > 1),
    random_cuts=st.booleans(),
    ordered=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_summaries_restore_the_documents(lengths, parts, random_cuts, ordered, seed):
    settings = Tangle(parts=parts, random_cuts=random_cuts, ordered=ordered)
    rng, own = np.random.default_rng(seed), marks(settings)
    documents = [[*rng.integers(TEXT + 1, TEXT + 500, size=length).tolist(), END] for length in lengths]
    # with a last part that is longer than all that is added, nothing of the others is pushed over the end
    row = np.array([token for document in documents for token in document] + [TEXT] * 5_000)
    found = tangle(row, own, rng)
    restored = [document for document in unravelled(found.tolist(), own.knots) if TEXT not in document]
    assert len(found) == len(row)
    if random_cuts:
        assert all(document in documents for document in restored)
    else:
        assert sorted(restored) == sorted(documents)


@pytest.fixture(scope="module")
def reserved_folder(inputs, tmp_path_factory):
    """Tokens made with a tokenizer that has nine reserved ones."""
    root = tmp_path_factory.mktemp("reserved")
    documents = inputs.all("documents")[0]
    tokenizer = Artefact("tokenizer", "tokenizer", root / "tokenizer")
    for name in ("tokenizer", "tokens"):
        (root / name).mkdir()
    config = TokenizerStage(kind="tokenizer", vocab_size=400, reserved=9)
    tokenizer_stage.run(config, Inputs((documents,)), Workspace(root / "tokenizer"))
    tokenize_stage.run(TokenizeStage(kind="tokenize"), Inputs((documents, tokenizer)), Workspace(root / "tokens"))
    return root / "tokens"


def phase(**changes) -> Phase:
    return Phase(name="long", steps=8, mixture={"code": 1, "prose": 3}, context=256, rows=16, **changes)


def test_a_phase_tangles_its_share_of_rows(reserved_folder):
    settings = Tangle(share=0.75)
    plain, data = (PretrainData(reserved_folder, [phase(tangle=one)], seed=3) for one in (None, settings))
    tokenizer = load_tokenizer(reserved_folder / "tokenizer")
    own, tangled = marks_of(tokenizer, settings), 0
    for step in range(8):
        before, after = plain.batch(step), data.batch(step)
        told = [trace.tangled for trace in data.documents_at(step)]
        tangled += sum(told)
        for row, touched in enumerate(told):
            found = [array[row] for array in (after.ids, after.labels, after.positions, after.documents)]
            if not touched:
                others = [array[row] for array in (before.ids, before.labels, before.positions, before.documents)]
                assert np.array_equal(found, others)
                continue
            assert found[2].tolist() == list(range(256))
            assert not found[3].any()
            kept = trained(found[0], own)
            assert np.array_equal(found[1], np.where(kept, found[0], NO_LABEL))
            assert not np.array_equal(found[0], before.ids[row])
    assert tangled == pytest.approx(0.75 * 128, abs=15)  # three deviations
    assert [trace.pieces for trace in data.documents_at(2)] == [trace.pieces for trace in plain.documents_at(2)]
    assert np.array_equal(
        PretrainData(reserved_folder, [phase(tangle=settings)], seed=3).batch(5).ids, data.batch(5).ids
    )
    other = PretrainData(reserved_folder, [phase(tangle=settings)], seed=4)
    assert not np.array_equal(other.batch(5).ids, data.batch(5).ids)


def test_a_process_reads_the_rows_of_its_share(reserved_folder):
    data = PretrainData(reserved_folder, [phase(tangle=Tangle())], seed=3)
    halves = [data.batch(3, Share(index, 2)) for index in range(2)]
    assert np.array_equal(np.concatenate([half.ids for half in halves]), data.batch(3).ids)
    assert np.array_equal(np.concatenate([half.labels for half in halves]), data.batch(3).labels)


def test_a_tokenizer_without_reserved_tokens_is_refused(tokens_folder):
    with pytest.raises(RequestError, match="has 0 of the 9 reserved tokens that are needed"):
        PretrainData(tokens_folder, [phase(tangle=Tangle())], seed=3)
