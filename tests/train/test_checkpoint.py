"""Checkpoints: exact, torn ones skipped, old ones pruned, a full disk named."""

import json

import pytest
import torch
from safetensors.torch import load_file

from glassbox.errors import GlassboxError
from glassbox.recipe.optimizer import Optimizer
from glassbox.train import checkpoint
from glassbox.train.checkpoint import Progress
from glassbox.train.optimizer import build_optimizer
from glassbox.train.parallel.place import Placed
from tests.train.conftest import build


def trained(seed: int, updates: int):
    model = build(seed=seed)
    adamw = build_optimizer(Placed([model]), Optimizer(lr=0.01))
    for update in range(updates):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * (update + 1))
        adamw.step()
    return model, adamw


def assert_same(first, second):
    for (name, mine), (_, theirs) in zip(first[0].state_dict().items(), second[0].state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), name
    for mine, theirs in zip(first[0].parameters(), second[0].parameters(), strict=True):
        for key, value in first[1].state[mine].items():
            assert torch.equal(value, second[1].state[theirs][key]), key


def test_a_round_trip_is_exact(tmp_path):
    first, second = trained(1, 3), trained(2, 1)
    progress = Progress(step=3, tokens=70, seconds=1.5, evaluation={"a": 0.1}, expert_load=[[0.5, 0.5]])
    checkpoint.save(tmp_path, *first, progress)
    assert checkpoint.resume(tmp_path, *second) == progress
    assert_same(first, second)


def test_nothing_to_resume_is_a_fresh_start(tmp_path):
    assert checkpoint.resume(tmp_path / "absent", *trained(1, 0)) == Progress()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_checkpoint_is_skipped_and_replaced(tmp_path, caplog, name, damage):
    good, late = trained(1, 2), trained(1, 4)
    checkpoint.save(tmp_path, *good, Progress(step=2))
    checkpoint.save(tmp_path, *late, Progress(step=4))
    path = tmp_path / "step-000000004" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    resumed = trained(5, 0)
    assert checkpoint.resume(tmp_path, *resumed).step == 2
    assert_same(good, resumed)
    assert "step-000000004 is damaged" in caplog.text
    checkpoint.save(tmp_path, *late, Progress(step=4))
    assert checkpoint.resume(tmp_path, *resumed).step == 4


def test_leftovers_of_a_kill_are_removed_and_old_checkpoints_pruned(tmp_path):
    (tmp_path / ".tmp-step-000000009.x").mkdir(parents=True)
    state = trained(1, 1)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, *state, Progress(step=step))
    assert checkpoint.resume(tmp_path, *state).step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]
    checkpoint.prune(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]


def test_the_optimizer_goes_by_parameter_name(tmp_path):
    model, adamw = trained(1, 1)
    checkpoint.save(tmp_path, model, adamw, Progress(step=1))
    names = {key.split(".", 1)[1] for key in load_file(tmp_path / "step-000000001" / "optimizer.safetensors")}
    assert names == dict(model.named_parameters()).keys()
    assert json.loads((tmp_path / "step-000000001" / "state.json").read_text())["progress"]["step"] == 1


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    state = trained(1, 1)
    checkpoint.save(tmp_path, *state, Progress(step=1))
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(GlassboxError, match=r"step-000000002.*No space left"):
        checkpoint.save(tmp_path, *state, Progress(step=2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
