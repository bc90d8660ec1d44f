"""Safetensors files written and read here, against the library's own reader and writer."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from glassbox.model import tensors as tensors_
from glassbox.model.tensors import INDEX, WEIGHTS, Checkpoint, InMemory, write_tensors

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TENSOR = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3))


def made(kinds: list[tuple[torch.dtype, list[int]]]) -> dict[str, torch.Tensor]:
    return {f"tensor.{i}": torch.randn(shape).to(dtype) for i, (dtype, shape) in enumerate(kinds)}


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(TENSOR, min_size=1, max_size=8), shard_bytes=st.integers(1, 200), piece_bytes=st.integers(1, 100))
def test_what_is_written_the_library_reads(kinds, shard_bytes, piece_bytes, tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("tensors"), made(kinds)
    before, tensors_.PIECE_BYTES = tensors_.PIECE_BYTES, piece_bytes
    try:
        write_tensors(folder, InMemory(state), shard_bytes)
    finally:
        tensors_.PIECE_BYTES = before
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert torch.equal(found[name], value)
    checkpoint = Checkpoint(folder)
    assert sorted(checkpoint.entries) == sorted(state)
    assert all(torch.equal(checkpoint.read(name), value) for name, value in state.items())


@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(TENSOR, min_size=1, max_size=6), start=st.integers(0, 6), stop=st.none() | st.integers(0, 6))
def test_what_the_library_writes_is_read_by_rows(kinds, start, stop, tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("tensors"), made(kinds)
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    checkpoint = Checkpoint(folder)
    for name, value in state.items():
        assert checkpoint.entries[name].bytes == value.nbytes
        if value.dim():
            assert torch.equal(checkpoint.read(name, start, stop), value[start:stop])


def test_writing_again_leaves_nothing_of_before(tmp_path):
    state = made([(torch.float32, [4, 3])] * 5)
    write_tensors(tmp_path, InMemory(state), 100)
    shards = sorted(path.name for path in tmp_path.iterdir())
    assert shards == [*(f"model-{i + 1:05d}-of-00003.safetensors" for i in range(3)), INDEX]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"] == {"total_size": 5 * 48}
    assert index["weight_map"]["tensor.4"] == "model-00003-of-00003.safetensors"
    write_tensors(tmp_path, InMemory(state))
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    again = (tmp_path / WEIGHTS).read_bytes()
    write_tensors(tmp_path, InMemory(state))
    assert (tmp_path / WEIGHTS).read_bytes() == again
    write_tensors(tmp_path, InMemory(state), 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == shards


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    state = made([(torch.float32, [4, 3])] * 5)
    write_tensors(tmp_path, InMemory(state))
    before = (tmp_path / WEIGHTS).read_bytes()

    class Failing(InMemory):
        def read(self, name, start=0, stop=None):
            if name == "tensor.3":
                raise RuntimeError("no more")
            return super().read(name, start, stop)

    for shard_bytes in (1 << 30, 100):
        with pytest.raises(RuntimeError, match="no more"):
            write_tensors(tmp_path, Failing(state), shard_bytes)
        assert (tmp_path / WEIGHTS).read_bytes() == before
        assert all(torch.equal(Checkpoint(tmp_path).read(name), value) for name, value in state.items())
