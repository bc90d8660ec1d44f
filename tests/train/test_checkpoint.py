"""Checkpoints: exact under any layout, written while training goes on, and refused if they are not what was written."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import nn

from glassbox.errors import GlassboxError, IntegrityError, RequestError
from glassbox.interchange.exporting import export_model
from glassbox.model.families import Sizes
from glassbox.model.folder import describe_model, load_model
from glassbox.model.pieces import Pieces
from glassbox.model.tensors import write_tensors
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer
from glassbox.tokens.tokenizer import SPECIAL_TOKENS
from glassbox.train import checkpoint, storage
from glassbox.train.checkpoint import Progress, Saver, is_kept, newest, resume, whole_tensors
from glassbox.train.optimizer import build_optimizer
from glassbox.train.parallel.layout import Extent, whole
from glassbox.train.parallel.place import Placed
from tests.train.conftest import VOCABULARY, build
from tests.train.test_loop import train


def trained(seed: int, updates: int):
    placed = Placed([build(seed=seed, bias=True)])
    adamw = build_optimizer(placed, Optimizer(lr=0.01))
    for update in range(updates):
        for _, parameter in placed.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * (update + 1))
        adamw.step()
    return placed, adamw


def save(folder: Path, state, progress: Progress, keep: bool = False, describe=None) -> None:
    with Saver(folder, *state, describe) as saver:
        saver.save(progress, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same(first, second):
    for (name, mine), (_, theirs) in zip(first[0].tensors(), second[0].tensors(), strict=True):
        assert torch.equal(mine, theirs), name
    for (name, mine), (_, theirs) in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert first[1].state[mine].keys() == second[1].state[theirs].keys()
        for moment, value in first[1].state[mine].items():
            assert torch.equal(value, second[1].state[theirs][moment]), (moment, name)


def test_a_round_trip_is_exact(tmp_path):
    first, second = trained(1, 3), trained(2, 1)
    progress = Progress(step=3, tokens=70, seconds=1.5, evaluation={"a": 0.1}, expert_load=[[0.5, 0.5]])
    save(tmp_path, first, progress)
    assert resume(tmp_path, *second) == progress
    assert_same(first, second)


def test_moments_that_were_not_yet_there_are_not_there_after_going_back(tmp_path):
    first, second = trained(1, 0), trained(1, 1)
    save(tmp_path, first, Progress(step=3))
    resume(tmp_path, *second)
    assert not second[1].state
    assert_same(trained(1, 0), second)


def test_nothing_to_resume_is_a_fresh_start(tmp_path):
    assert resume(tmp_path / "absent", *trained(1, 0)) == Progress()


def test_another_network_is_refused(tmp_path):
    save(tmp_path, trained(1, 1), Progress(step=3))
    other = Placed([build(experts=False)])
    with pytest.raises(RequestError, match="another network"):
        resume(tmp_path, other, build_optimizer(other, Optimizer(lr=0.01)))


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "tensors.json", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name, damage):
    good, late = trained(1, 2), trained(1, 4)
    save(tmp_path, good, Progress(step=2))
    save(tmp_path, late, Progress(step=4))
    path = tmp_path / "step-000000004" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    resumed, before = trained(5, 1), trained(5, 1)
    with pytest.raises(IntegrityError, match=rf"step-000000004/{name} .*delete .*step-000000004 to go on"):
        resume(tmp_path, *resumed)
    assert_same(before, resumed)  # refused before anything was read
    assert names(tmp_path) == ["step-000000002", "step-000000004"]
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    assert resume(tmp_path, *resumed).step == 2
    assert_same(good, resumed)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_bit_of_the_state_goes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped")
    state = {"progress": {"step": 12, "loss_scale": 65536.0}, "kept": False, "sha256": {}}
    content = bytearray(checkpoint._sealed(state).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "state.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"state\.json does not match"):
        checkpoint._verified(folder, 0, 1)


def test_leftovers_of_a_kill_are_removed_and_old_checkpoints_pruned(tmp_path):
    (tmp_path / ".tmp-step-000000009").mkdir(parents=True)
    state = trained(1, 1)
    for step in (1, 2, 3, 4):
        save(tmp_path, state, Progress(step=step), keep=step == 1)
    assert resume(tmp_path, *state).step == 4
    assert names(tmp_path) == ["step-000000001", "step-000000003", "step-000000004"]
    checkpoint.prune(tmp_path, 1)
    assert names(tmp_path) == ["step-000000001", "step-000000004"]
    assert newest(tmp_path).name == "step-000000004"


@given(st.integers(0, 30), st.integers(0, 500), st.lists(st.integers(1, 90), min_size=1, max_size=40))
def test_a_checkpoint_stays_where_steps_or_tokens_pass_a_multiple(every, tokens, sizes):
    kept, done = [], 0
    loop = Loop(keep_every=every, keep_tokens=tokens)
    for step, size in enumerate(sizes, 1):
        if is_kept(loop, done, Progress(step=step, tokens=done + size)):
            kept.append(step)
        done += size
    ends = [sum(sizes[:step]) for step in range(1, len(sizes) + 1)]
    passed = {next(s for s, end in enumerate(ends, 1) if end >= mark) for mark in range(tokens, done + 1, tokens or 1)}
    assert set(kept) == set(range(every, len(sizes) + 1, every or len(sizes) + 1)) - {0} | (passed if tokens else set())


def test_the_loop_keeps_checkpoints_for_good(tmp_path):
    train(tmp_path, steps=11, checkpoint_every=3, keep_every=4, keep_tokens=1000)
    tokens = 6 * 40 - 3 * 7  # of each step
    by_tokens = {step for step in range(1, 12) if step * tokens // 1000 > (step - 1) * tokens // 1000}
    expected = {4, 8} | by_tokens | {10, 11}
    assert names(tmp_path / "checkpoints") == [f"step-{step:09d}" for step in sorted(expected)]


def test_saving_returns_before_the_write_ends_and_holds_that_moment(tmp_path, monkeypatch):
    going, done = threading.Event(), threading.Event()
    write = storage.write_pieces

    def held(*arguments):
        going.set()
        assert done.wait(60)
        return write(*arguments)

    monkeypatch.setattr(storage, "write_pieces", held)
    state, before, loaded = trained(1, 2), trained(1, 2), trained(3, 0)
    with Saver(tmp_path, *state) as saver:
        saver.save(Progress(step=2))
        assert going.wait(60)
        with torch.no_grad():  # training goes on
            for _, tensor in state[0].tensors():
                tensor.zero_()
        state[1].step()
        assert not list(tmp_path.glob("step-*"))
        assert not saver.failed()
        done.set()
        saver.wait()
        assert names(tmp_path) == ["step-000000002"]
    assert resume(tmp_path, *loaded).step == 2
    assert_same(before, loaded)


KILLED = """
import sys, time
from pathlib import Path
from glassbox.train import storage
from glassbox.train.checkpoint import Progress, Saver
from tests.train.test_checkpoint import trained

state = trained(1, 2)
with Saver(Path(sys.argv[1]), *state) as saver:
    saver.save(Progress(step=2))
    saver.wait()

    def half(file, names, tensors):
        file.write(bytes(1000))
        file.flush()
        print("half", flush=True)
        time.sleep(600)

    storage.write_file = half
    saver.save(Progress(step=4))
    state[1].step()
    time.sleep(600)
"""


def test_a_kill_while_it_is_written_leaves_the_one_before_whole_and_chosen(tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == [".tmp-step-000000004", "step-000000002"]
    loaded = trained(3, 0)
    assert resume(tmp_path, *loaded).step == 2
    assert_same(trained(1, 2), loaded)
    assert names(tmp_path) == ["step-000000002"]


def test_a_full_disk_is_one_sentence_and_stops_the_run_before_it_writes(tmp_path, monkeypatch):
    usage = checkpoint.shutil.disk_usage
    train(tmp_path, steps=3)
    needed = storage.plan(storage.parts_of(*trained(1, 1)), None).bytes
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage(path)._replace(free=needed // 2))
    before = names(tmp_path / "checkpoints")
    with pytest.raises(GlassboxError, match=r"no room for the checkpoint .*step-000000006.*the one before it is whole"):
        train(tmp_path, steps=8)
    assert names(tmp_path / "checkpoints") == before == ["step-000000003"]
    monkeypatch.undo()
    assert train(tmp_path, steps=8)[1].step == 8


def test_a_write_that_fails_stops_the_run_with_one_sentence(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    state = trained(1, 1)
    save(tmp_path, state, Progress(step=1))
    monkeypatch.setattr(storage, "write_file", refuse)
    message = r"could not write the checkpoint .*step-000000002.*No space left.*the one before it is whole"
    with pytest.raises(GlassboxError, match=message):
        save(tmp_path, state, Progress(step=2))
    with Saver(tmp_path, *state) as saver:
        saver.save(Progress(step=2))
        while not saver.failed():
            time.sleep(0.01)
        with pytest.raises(GlassboxError, match=message):
            saver.save(Progress(step=3))

    def fail():
        with Saver(tmp_path, *state) as saver:
            saver.save(Progress(step=2))
            raise KeyError

    with pytest.raises(KeyError):  # what ended the run is not hidden
        fail()
    assert names(tmp_path) == ["step-000000001"]


def test_a_checkpoint_is_a_model(tmp_path):
    files = tmp_path / "tokenizer"
    files.mkdir()
    tokens = Tokenizer(models.BPE())
    tokens.add_special_tokens(list(SPECIAL_TOKENS))
    tokens.save(str(files / "tokenizer.json"))
    placed = Placed([build(experts=False)])
    state = placed, build_optimizer(placed, Optimizer(lr=0.01))
    sizes = Sizes(placed.model.network, VOCABULARY, 64)
    save(tmp_path, state, Progress(step=5), describe=lambda folder, step: describe_model(folder, sizes, files))
    folder = newest(tmp_path)
    loaded = load_model(folder)
    assert (loaded.network, loaded.vocab_size, loaded.context) == (sizes.network, VOCABULARY, 64)
    for name, tensor in placed.tensors():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name
    assert export_model(folder, tmp_path / "exported").parameters == sum(p.numel() for _, p in placed.parameters())
    write_tensors(tmp_path / "model", whole_tensors(folder))
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(tensor, saved.pop(name)) for name, tensor in placed.tensors())
    assert not saved
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("64", "63"))
    with pytest.raises(IntegrityError, match=r"config\.json does not match its hash"):
        resume(tmp_path, *state)


# Processes played by threads: what is divided among them is drawn at random.


class Crew:
    """Threads that stand for the processes of a run."""

    def __init__(self, count: int):
        self.count, self.barrier, self.given = count, threading.Barrier(count, timeout=60), [None] * count

    def gather(self, rank: int, value):
        self.given[rank] = value
        self.barrier.wait()
        values = list(self.given)
        self.barrier.wait()
        return values

    def run(self, work):
        """What `work(rank)` gives on each."""
        with ThreadPoolExecutor(self.count) as pool:
            return [future.result() for future in [pool.submit(work, rank) for rank in range(self.count)]]

    def ranks(self, rank: int):
        most = lambda values: [max(column) for column in zip(*self.gather(rank, values), strict=True)]  # noqa: E731
        return SimpleNamespace(rank=rank, world=self.count, aside=(self, rank), most=most)


@pytest.fixture(autouse=True)
def _groups_of_threads(monkeypatch):
    """`storage` takes a (crew, rank) for a process group."""

    def all_gather(values, value, group):
        values[:] = group[0].gather(group[1], value)

    play = SimpleNamespace(
        all_gather_object=all_gather, get_world_size=lambda group: group[0].count, get_rank=lambda group: group[1]
    )
    monkeypatch.setattr(storage, "dist", play)


def split(draw: random.Random, start: int, stop: int, count: int) -> list[tuple[int, int]]:
    cuts = sorted(draw.randint(start, stop) for _ in range(count - 1))
    return list(zip([start, *cuts], [*cuts, stop], strict=True))


def divided(draw: random.Random, shape: tuple[int, ...], count: int) -> list[Extent]:
    """Extents of `count` processes: some copies, some shares of the first dimension, of the last and of fused pieces of
    it; some of them may be empty."""
    rows = draw.choice([n for n in range(1, count + 1) if count % n == 0])
    columns = draw.choice([n for n in range(1, count // rows + 1) if (count // rows) % n == 0])
    extents = []
    for dimension, shares in ((0, rows), (len(shape) - 1, columns)):
        fused = split(draw, 0, shape[dimension], draw.randint(1, 3))
        extents.append([split(draw, *piece, shares) for piece in fused])
    found = []
    for rank in range(count):
        extent = whole(shape)
        places = (rank % rows, rank // rows % columns)
        for dimension, pieces, place in zip((0, len(shape) - 1), extents, places, strict=True):
            if len(pieces[0]) > 1:
                ranges = tuple(piece[place] for piece in pieces if piece[place][0] < piece[place][1])
                extent = extent.pick(dimension, ranges)
        found.append(extent)
    return found


def local(tensor: torch.Tensor, extent: Extent) -> torch.Tensor:
    part = torch.zeros(extent.local)
    for block in extent.blocks():
        block.of(part).copy_(block.of_whole(tensor))
    return part


def placed_on(draw: random.Random, crew: Crew, values: dict[str, torch.Tensor], moments) -> list:
    """Each process's part of the values, under a layout of its own, with moments if they are given."""
    layout = {name: divided(draw, tuple(value.shape), crew.count) for name, value in values.items()}
    states = []
    for rank in range(crew.count):
        extents = {name: each[rank] for name, each in layout.items()}
        module = nn.Module()
        for name, value in values.items():
            part = local(value, extents[name])
            module.register_buffer(name, part) if "bias" in name else setattr(module, name, nn.Parameter(part))
        placed = Placed([module], crew.ranks(rank), extents)
        optimizer = torch.optim.AdamW([p for _, p in placed.parameters()], lr=0.1)
        for name, parameter in placed.parameters() if moments else ():
            held = {moment: local(each[name], extents[name]) for moment, each in moments.items()}
            optimizer.state[parameter] = held | {"step": torch.tensor(7.0)}
        states.append((placed, optimizer))
    return states


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 3, 4, 6]))
def test_what_one_plan_saved_another_loads_bit_for_bit(tmp_path_factory, draw, writers, readers):
    folder = tmp_path_factory.mktemp("resharded")
    shapes = [tuple(draw.randint(1, 9) for _ in range(draw.randint(1, 3))) for _ in range(4)]
    values, first, second = (
        {name: torch.randn(shape) for name, shape in zip(("a", "b", "c", "bias_E"), shapes, strict=True)}
        for _ in range(3)
    )
    moments = {"exp_avg": first, "exp_avg_sq": second}
    crew, others = Crew(writers), Crew(readers)
    states = placed_on(draw, crew, values, moments)
    crew.run(lambda rank: save(folder, states[rank], Progress(step=3)))
    path = newest(folder)
    written = Counter()
    for file in path.glob("rank-*.safetensors"):
        for name, piece in load_file(file).items():
            written[name.split("@")[0]] += piece.numel()
    expected = {f"model.{name}": value.numel() for name, value in values.items()}
    for name in ("a", "b", "c"):
        expected |= {f"optimizer.{moment}.{name}": values[name].numel() for moment in moments}
        expected[f"optimizer.step.{name}"] = 1
    assert written == expected  # each value once, however many processes hold it
    assert all(torch.equal(whole_tensors(path).read(name), value) for name, value in values.items())

    wanted, emptied = (
        placed_on(random.Random(5), others, {name: fill(v) for name, v in values.items()}, None)
        for fill in (lambda value: value, torch.zeros_like)
    )
    assert others.run(lambda rank: resume(folder, *emptied[rank]).step) == [3] * readers
    for (right, _), (placed, optimizer) in zip(wanted, emptied, strict=True):
        for (name, expected_part), (_, part) in zip(right.tensors(), placed.tensors(), strict=True):
            assert torch.equal(expected_part, part), name
        for name, parameter in placed.parameters():
            assert optimizer.state[parameter].keys() == {*moments, "step"}
            assert optimizer.state[parameter]["step"] == 7
            for moment, each in moments.items():
                assert torch.equal(optimizer.state[parameter][moment], local(each[name], placed.extents[name]))


def test_only_what_is_needed_is_read(tmp_path, monkeypatch):
    values = {"a": torch.randn(12, 8)}
    crew, others = Crew(3), Crew(2)
    states = placed_on(random.Random(1), crew, values, None)
    crew.run(lambda rank: save(tmp_path, states[rank], Progress(step=3)))
    read: list[int] = []
    inner = Pieces._read

    def counted(self, *arguments):
        found = inner(self, *arguments)
        read.append(found.numel())
        return found

    monkeypatch.setattr(Pieces, "_read", counted)
    emptied = placed_on(random.Random(8), others, values, None)
    others.run(lambda rank: resume(tmp_path, *emptied[rank]))
    assert sum(read) == sum(tensor.numel() for placed, _ in emptied for _, tensor in placed.tensors())


def test_what_fails_on_one_process_is_raised_on_all(tmp_path, monkeypatch):
    values = {"a": torch.randn(12, 8)}
    crew = Crew(3)
    states = placed_on(random.Random(1), crew, values, None)
    crew.run(lambda rank: save(tmp_path, states[rank], Progress(step=3)))
    write = storage.write_pieces

    def refuse(folder, rank, pieces):
        if rank == 1:
            raise OSError(5, "Input/output error")
        return write(folder, rank, pieces)

    def attempt(work):
        try:
            return work()
        except GlassboxError as error:
            return f"{type(error).__name__}: {error}"

    monkeypatch.setattr(storage, "write_pieces", refuse)
    told = crew.run(lambda rank: attempt(lambda: save(tmp_path, states[rank], Progress(step=6))))
    assert all("could not write the checkpoint" in one and "Input/output error" in one for one in told)
    assert names(tmp_path) == ["step-000000003"]
    hashes = json.loads((newest(tmp_path) / "state.json").read_text())["sha256"]
    assert len(hashes) > 1
    (newest(tmp_path) / max(hashes)).write_text("{}")
    told = crew.run(lambda rank: attempt(lambda: resume(tmp_path, *states[rank])))
    assert all(one.startswith("IntegrityError") and max(hashes) in one for one in told)


def test_processes_that_do_not_make_up_a_tensor_are_not_saved(tmp_path):
    crew = Crew(2)
    states = placed_on(random.Random(1), crew, {"a": torch.randn(4, 4)}, None)
    for rank, (placed, _) in enumerate(states):
        placed.extents["a"] = whole((4, 4)).pick(0, ((rank, rank + 1),))
        placed.parts[0].a = nn.Parameter(torch.randn(1, 4))

    def attempt(rank):
        with pytest.raises(ValueError, match="Failed to validate global plan"):
            storage.plan(storage.parts_of(*states[rank]), (crew, rank))

    crew.run(attempt)
