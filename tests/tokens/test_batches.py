"""Rows of pretraining and evaluation, against a brute-force reading of the shards."""

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.errors import RequestError
from glassbox.recipe.epochs import epochs
from glassbox.recipe.phases import Phase
from glassbox.tokens.batches import NO_LABEL, PretrainData, held_out_rows
from glassbox.tokens.order import Share
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


def windows_of(tokens_folder, source, context):
    return len(TokenFolder(tokens_folder).shard(source, "train")) // context


def read(data, steps):
    """(source, window) of every row of the steps."""
    return [row for step in steps for row in data.windows(step)]


def of_rows(name, rows, **settings):
    """A phase of so many rows of 16 tokens of prose, 32 in a step."""
    return Phase(name=name, tokens=rows * 16, mixture={"prose": 1.0}, context=16, rows=32, **settings)


def test_every_window_of_an_epoch_is_read_once(tokens_folder):
    count = windows_of(tokens_folder, "prose", 16)
    phases = [of_rows("one", count), of_rows("two", count)]
    data = PretrainData(tokens_folder, phases, seed=1)
    first, second = (read(data, range(n * data.steps // 2, (n + 1) * data.steps // 2)) for n in range(2))
    assert sorted(first) == sorted(second) == [("prose", window) for window in range(count)]
    assert first != second


def test_phases_of_one_context_go_on_where_the_last_stopped(tokens_folder):
    count = windows_of(tokens_folder, "code", 16)
    lengths = (20, 1, count // 4 - 30)
    phases = [Phase(name=str(n), steps=n, mixture={"code": 1.0, "prose": 1e-9}, context=16, rows=4) for n in lengths]
    data = PretrainData(tokens_folder, phases, seed=1)
    found = [window for source, window in read(data, range(data.steps)) if source == "code"]
    assert len(found) == len(set(found)) == 4 * sum(lengths)


def test_a_reshuffled_phase_reads_everything_anew_in_its_own_order(tokens_folder):
    count = windows_of(tokens_folder, "prose", 16)
    phases = [
        of_rows("part", count // 2),
        of_rows("anneal", count, reshuffle=True),
        of_rows("rest", count - count // 2),
    ]
    data = PretrainData(tokens_folder, phases, seed=1)
    ends = accumulate((phase.total_steps for phase in phases), initial=0)
    part, anneal, rest = (read(data, range(low, high)) for low, high in pairwise(ends))
    whole = [("prose", window) for window in range(count)]
    assert sorted(anneal) == whole
    assert sorted(part + rest) == whole
    assert anneal[: len(part)] != part
    assert data.epochs()["prose"] == pytest.approx(2, rel=0.01)


RAMPS = st.lists(st.integers(1, 9), min_size=1, max_size=4).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes), st.lists(st.integers(1, 40), min_size=len(sizes), max_size=len(sizes), unique=True)
    )
)


@settings(max_examples=40, deadline=None)
@given(RAMPS, st.integers(1, 60), st.integers(1, 5), st.integers(1, 3))
def test_ramps_start_at_their_tokens_and_every_row_is_read_once(tokens_folder, ramp, rows, processes, by):
    sizes, starts = ramp[0], sorted(ramp[1])
    entries = [{"rows": sizes[0]}]
    for size, start in zip(sizes[1:], starts[1:], strict=True):
        grows = {"by": by} if size > entries[-1]["rows"] else {}
        entries.append({"rows": size, "after": start * 16, **grows})
    mixture = {"code": 0.6, "prose": 0.4}
    phases = [
        Phase(name="ramp", tokens=rows * 16 - 3, mixture=mixture, context=16, rows=entries),
        Phase(name="flat", tokens=33, mixture=mixture, context=8, rows=2),
    ]
    data = PretrainData(tokens_folder, phases, seed=2)
    steps = [(data.locate(step), data.rows(step)) for step in range(data.steps)]
    for number, phase in enumerate(phases):
        mine = [(place, rows) for (n, place), rows in steps if n == number]
        assert [place for place, _ in mine] == list(range(phase.total_steps))
        assert [row for _, rows in mine for row in rows] == list(range(phase.total_rows))
    ramped = [rows for (n, _), rows in steps if n == 0]
    for entry in entries:
        if (after := entry.get("after", 0) // 16) < phases[0].total_rows:
            first = next(rows for rows in ramped if rows.start == after)
            assert len(first) <= entry["rows"]
            assert len(first) == entry["rows"] or first.stop in (rows.start for rows in [*ramped, range(rows, 0)])
    for step in range(data.steps):
        parts = [data.windows(step, Share(i, processes)) for i in range(processes)]
        assert [row for part in parts for row in part] == data.windows(step)


@pytest.mark.parametrize("processes", [2, 3, 11])
def test_processes_read_a_step_between_them(pretraining, processes):
    for step in (0, 7, 14):  # 8, 4 and 2 rows: some processes have none
        parts = [pretraining.batch(step, Share(i, processes)) for i in range(processes)]
        assert max(len(part.ids) for part in parts) - min(len(part.ids) for part in parts) <= 1
        for name, whole in vars(pretraining.batch(step)).items():
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), whole)


def test_growth_by_steps_has_equal_stretches(tokens_folder):
    rows = [{"rows": 2}, {"rows": 8, "after": 480, "by": 2}]
    phase = Phase(name="warm-up", tokens=800, mixture={"code": 1.0}, context=16, rows=rows)
    data = PretrainData(tokens_folder, [phase], seed=1)
    sizes = [(rows.start * 16, len(rows)) for rows in map(data.rows, range(data.steps))]
    firsts = {size: tokens for tokens, size in reversed(sizes)}
    assert (firsts[2], firsts[4], firsts[6], firsts[8]) == (0, 160, 320, 480)


def test_a_step_read_anew_keeps_its_shape_and_goes_on_with_other_rows(tokens_folder, pretraining):
    total = pretraining.steps
    for step in range(total):
        again = [pretraining.rows(step + n * total) for n in range(3)]
        number = pretraining.locate(step)[0]
        phase = pretraining.phases[number]
        assert [pretraining.locate(step + n * total) for n in range(3)] == [pretraining.locate(step)] * 3
        assert [rows.start - again[0].start for rows in again] == [0, phase.total_rows, 2 * phase.total_rows]
        assert len({len(rows) for rows in again}) == 1
        assert pretraining.batch(step + total).ids.shape == pretraining.batch(step).ids.shape
    alone = PretrainData(tokens_folder, PHASES[:1], seed=11)
    twice = read(alone, range(2 * alone.steps))
    assert len(set(twice)) == len(twice)  # no window of the first reading comes again


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


def test_epochs_are_the_windows_read(pretraining, tokens_folder):
    sizes = TokenFolder(tokens_folder).train_sizes
    counted = dict.fromkeys(pretraining.epochs(), 0)
    for step in range(pretraining.steps):
        context = pretraining.phases[pretraining.locate(step)[0]].context
        for source, _ in pretraining.windows(step):
            counted[source] += context
    assert pretraining.epochs() == {source: tokens / sizes[source] for source, tokens in counted.items()}
    closed = epochs(PHASES, sizes)
    for source, found in pretraining.epochs().items():  # of each phase at most one row's difference
        assert found == pytest.approx(closed[source], abs=(64 + 32 + 64) / sizes[source])


def test_steps_below_zero_are_refused(pretraining):
    with pytest.raises(IndexError, match="counted from 0"):
        pretraining.batch(-1)


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
