"""Tensors in pieces: any box comes back, and a damaged folder is named in one sentence."""

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from glassbox.errors import RequestError
from glassbox.model.pieces import PIECES, Pieces, key


def write(folder, tensors: dict[str, torch.Tensor], cuts, files: int) -> None:
    """Cut each tensor at `cuts(length)` along each dimension and deal the pieces out to files."""
    index, held = {}, [{} for _ in range(files)]
    for name, tensor in tensors.items():
        edges = [sorted({0, length, *cuts(length)}) for length in tensor.shape]
        pieces = []
        for number, box in enumerate(itertools.product(*(itertools.pairwise(along) for along in edges))):
            offset, shape = [start for start, _ in box], [stop - start for start, stop in box]
            part = tensor[tuple(slice(*ends) for ends in box)].contiguous()
            held[number % files][key(name, offset)] = part
            pieces.append({"file": f"rank-{number % files:05d}.safetensors", "offset": offset, "shape": shape})
        dtype = "BF16" if tensor.dtype == torch.bfloat16 else "F32"
        index[name] = {"dtype": dtype, "shape": list(tensor.shape), "pieces": pieces}
    for number, pieces in enumerate(held):
        save_file(pieces, folder / f"rank-{number:05d}.safetensors")
    (folder / PIECES).write_text(json.dumps(index))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_box_comes_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pieces")
    shape = data.draw(st.lists(st.integers(1, 7), max_size=3))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    tensor = torch.randn(shape).to(dtype)
    write(folder, {"a": tensor}, lambda length: data.draw(st.lists(st.integers(0, length), max_size=2)), 3)
    pieces = Pieces(folder)
    assert (pieces.entries["a"].dtype, pieces.entries["a"].shape) == (dtype, tuple(shape))
    ends = [sorted(data.draw(st.tuples(st.integers(0, length), st.integers(0, length)))) for length in shape]
    box = pieces.box("a", [start for start, _ in ends], [stop - start for start, stop in ends])
    assert torch.equal(box, tensor[tuple(slice(*along) for along in ends)])
    if shape:
        assert torch.equal(pieces.read("a", *ends[0]), tensor[slice(*ends[0])])
    assert torch.equal(pieces.read("a"), tensor)


def test_names_are_chosen_by_their_prefix(tmp_path):
    write(tmp_path, {"model.a": torch.ones(2), "optimizer.exp_avg.a": torch.zeros(2)}, lambda length: [], 1)
    assert Pieces(tmp_path, "model.").entries.keys() == {"a"}
    assert torch.equal(Pieces(tmp_path, "model.").read("a"), torch.ones(2))


def test_damage_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"tensors\.json is missing"):
        Pieces(tmp_path)
    write(tmp_path, {"a": torch.ones(4)}, lambda length: [2], 1)
    file = tmp_path / "rank-00000.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(RequestError, match=r"rank-00000\.safetensors is damaged: 'a@0' cannot be read"):
        Pieces(tmp_path).read("a")
    file.write_bytes(whole.replace(b"a@2", b"a@3"))
    with pytest.raises(RequestError, match=r"rank-00000\.safetensors is damaged: 'a@2' cannot be read"):
        Pieces(tmp_path).read("a")
    file.write_bytes(whole)
    index = json.loads((tmp_path / PIECES).read_text())
    index["a"]["pieces"].pop()
    (tmp_path / PIECES).write_text(json.dumps(index))
    assert torch.equal(Pieces(tmp_path).read("a", 0, 2), torch.ones(2))
    with pytest.raises(RequestError, match=r"tensors\.json is damaged: its pieces do not make up 'a'"):
        Pieces(tmp_path).read("a")
    index["a"]["pieces"][0]["file"] = "../rank-00000.safetensors"
    (tmp_path / PIECES).write_text(json.dumps(index))
    with pytest.raises(RequestError, match=r"tensors\.json is damaged"):
        Pieces(tmp_path)
    (tmp_path / PIECES).write_text('{"a": {"dtype": "F32"}}')
    with pytest.raises(RequestError, match=r"tensors\.json is damaged"):
        Pieces(tmp_path)
    (tmp_path / PIECES).write_text("[]")
    with pytest.raises(RequestError, match=r"tensors\.json is damaged"):
        Pieces(tmp_path)
