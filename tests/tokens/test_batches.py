"""Rows of pretraining and evaluation, against a brute-force reading of the shards."""

import numpy as np
import pytest

from glassbox.errors import RequestError
from glassbox.recipe.phases import Phase
from glassbox.tokens.batches import NO_LABEL, PretrainData, held_out_rows
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import decode, token_bytes

PHASES = (
    Phase(name="one", steps=6, mixture={"code": 0.5, "prose": 0.3, "problems": 0.2}, context=64, rows=8),
    Phase(name="two", steps=4, mixture={"code": 1.0, "problems": 3.0}, context=32, rows=4),
    Phase(name="three", steps=5, mixture={"prose": 1.0, "code": 0.0}, context=64, rows=2),
)


@pytest.fixture(scope="module")
def pretraining(tokens_folder):
    return PretrainData(tokens_folder, PHASES, seed=11)


def brute_force_row(shard, first, context):
    """ids, labels, positions, documents of a window, token by token."""
    rows = []
    document, position, starts = -1, 0, set(shard.index.tolist())
    for token in range(first, first + context):
        begins = token == first or token in starts
        document, position = (document + 1, 0) if begins else (document, position + 1)
        ids = int(shard.tokens[token])
        rows.append((ids, NO_LABEL if begins else ids, position, document))
    return np.array(rows).T


def test_batches_equal_brute_force(pretraining, tokens_folder):
    folder = TokenFolder(tokens_folder)
    for step in range(pretraining.steps):
        phase = pretraining.phases[pretraining.locate(step)[0]]
        batch = pretraining.batch(step)
        assert batch.ids.shape == (phase.rows[0].rows, phase.context)
        assert {array.dtype for array in vars(batch).values()} == {np.dtype(np.int64)}
        for row, (source, window) in enumerate(pretraining.windows(step)):
            expected = brute_force_row(folder.shard(source, "train"), window * phase.context, phase.context)
            found = np.array([batch.ids[row], batch.labels[row], batch.positions[row], batch.documents[row]])
            assert np.array_equal(found, expected)


def test_a_step_is_a_function_of_its_number(pretraining, tokens_folder):
    again = PretrainData(tokens_folder, PHASES, seed=11)
    for step in (14, 3, 9, 3, 0):
        assert np.array_equal(again.batch(step).ids, pretraining.batch(step).ids)
    other = PretrainData(tokens_folder, PHASES, seed=12)
    assert [other.windows(step) for step in range(6)] != [pretraining.windows(step) for step in range(6)]


def test_adding_a_phase_does_not_change_those_before(tokens_folder, pretraining):
    short = PretrainData(tokens_folder, PHASES[:2], seed=11)
    assert [short.windows(step) for step in range(10)] == [pretraining.windows(step) for step in range(10)]


def test_every_window_of_an_epoch_is_read_once(tokens_folder):
    count = len(TokenFolder(tokens_folder).shard("prose", "train")) // 16
    phase = Phase(name="all", steps=3 * count, mixture={"prose": 1.0}, context=16, rows=1)
    data = PretrainData(tokens_folder, [phase], seed=1)
    # Rows come shuffled within blocks of the mixture, so epochs meet inside a block: compare draws over whole blocks.
    drawn = {}
    for row in range(3 * count // 1024 * 1024):
        _, draw = data._mixtures[0].row(row)
        drawn[draw] = data.windows(row)[0][1]
    epochs = [[drawn[draw] for draw in range(e * count, (e + 1) * count) if draw in drawn] for e in range(3)]
    assert sorted(epochs[0]) == list(range(count))
    assert sorted(epochs[1]) == list(range(count))
    assert epochs[0] != epochs[1]


def test_phases_of_one_context_go_on_where_the_last_stopped(tokens_folder):
    phases = [Phase(name=name, steps=20, mixture={"code": 1.0}, context=16, rows=4) for name in ("a", "b")]
    data = PretrainData(tokens_folder, phases, seed=1)
    assert len(TokenFolder(tokens_folder).shard("code", "train")) // 16 > 2048
    first = {window for step in range(20) for window in data.windows(step)}
    second = {window for step in range(20, 40) for window in data.windows(step)}
    assert len(first) == len(second) == 80
    assert not first & second


def test_documents_at_traces_every_token(pretraining, tokens_folder, tokenizer, corpus):
    texts = {row["id"]: row["text"] for row in corpus}
    for step in (0, 7, 12):
        batch = pretraining.batch(step)
        for trace in pretraining.documents_at(step):
            ends = [piece.last for piece in trace.pieces]
            assert [piece.first for piece in trace.pieces] == [0, *ends[:-1]]
            assert ends[-1] == batch.ids.shape[1]
            for piece in trace.pieces:
                assert piece.text == decode(tokenizer, batch.ids[trace.row, piece.first : piece.last].tolist())
                if trace.source != "problems":
                    inside = piece.text.removesuffix("<|endoftext|>").strip("\ufffd")
                    assert inside in texts[piece.id]
                    assert piece.document_token > 0 or texts[piece.id].startswith(inside)
                assert piece.origin


def test_epochs_counts_reading(pretraining, tokens_folder):
    size = len(TokenFolder(tokens_folder).shard("problems", "train"))
    assert pretraining.epochs()["problems"] == pytest.approx((0.2 * 6 * 8 * 64 + 0.75 * 4 * 4 * 32) / size)


def test_steps_outside_the_phases_are_refused(pretraining):
    for step in (-1, pretraining.steps):
        with pytest.raises(IndexError, match="outside the 15 steps"):
            pretraining.batch(step)


def test_a_source_smaller_than_a_window_is_a_clear_error(tokens_folder):
    phase = Phase(name="long", steps=1, mixture={"prose": 1.0}, context=10_000_000, rows=1)
    with pytest.raises(RequestError, match=r"phase 'long': source 'prose' has \d+ training tokens, less"):
        PretrainData(tokens_folder, [phase], seed=1)


def test_an_unknown_source_is_a_clear_error(tokens_folder):
    phase = Phase(name="x", steps=1, mixture={"wiki": 1.0}, context=8, rows=1)
    with pytest.raises(RequestError, match=r"no token source 'wiki'; there are: .*prose"):
        PretrainData(tokens_folder, [phase], seed=1)


@pytest.mark.parametrize("context", [16, 100, 4096])
def test_held_out_rows_label_every_byte_they_count(tokens_folder, tokenizer, context):
    folder = TokenFolder(tokens_folder)
    shard = folder.shard("code", "held_out")
    pieces = token_bytes(tokenizer)
    labelled, total, ids = [], 0, []
    for batch, text_bytes in held_out_rows(tokens_folder, "code", context, rows=3):
        assert batch.ids.shape[1] == context
        labelled += batch.labels[batch.labels != NO_LABEL].tolist()
        total += text_bytes
        ids += batch.ids.ravel().tolist()
        assert not (batch.labels == folder.eos_id).any()
        assert (batch.labels[:, 0] == NO_LABEL).all()
    assert ids[: len(shard)] == shard.tokens.tolist()
    assert set(ids[len(shard) :]) <= {folder.eos_id}
    assert total == len(b"".join(pieces[i] for i in labelled))
    first = set(range(0, len(shard), context)) | set(shard.index[:-1].tolist())
    expected = [i for n, i in enumerate(shard.tokens.tolist()) if n not in first and i != folder.eos_id]
    assert labelled == expected


def test_padding_is_a_document_of_its_own(tokens_folder):
    *_, (last, _) = held_out_rows(tokens_folder, "code", 4096, rows=1)
    shard = TokenFolder(tokens_folder).shard("code", "held_out")
    real = len(shard) % 4096
    assert 0 < real < 4096
    assert not set(last.documents[0, :real]) & set(last.documents[0, real:])
    assert (last.labels[0, real:] == NO_LABEL).all()
    assert last.positions[0, real] == 0


def test_a_limit_takes_windows_from_the_whole_text(tokens_folder):
    every = [batch.ids[0] for batch, _ in held_out_rows(tokens_folder, "code", 16, rows=1)]
    some = [batch.ids[0] for batch, _ in held_out_rows(tokens_folder, "code", 16, limit=5, rows=1)]
    assert len(some) == 5
    assert all(np.array_equal(row, every[n * len(every) // 5]) for n, row in enumerate(some))


def test_nothing_held_out_gives_no_rows(tokens_folder):
    assert not list(held_out_rows(tokens_folder, "problems", 16))
