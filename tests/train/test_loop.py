"""The loop: learns, does not depend on micro-batches, resumes bit for bit, stops cleanly and says when it diverges."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassbox.errors import GlassboxError, Interrupted
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.recipe.loop import Loop
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.size import train_flops
from glassbox.tokens.order import Share
from glassbox.train.compile import compile_blocks
from glassbox.train.evaluation import measure
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from tests.train.conftest import VOCABULARY, build, counting_rows


def train(folder: Path, *, steps: int = 8, model=None, batch_at=counting_rows, stop_at: int | None = None, **settings):
    """A short run; `stop_at` asks for a stop once that step is done."""
    folder.mkdir(exist_ok=True)
    seen: list[float] = []
    workspace = Workspace(folder, on_progress=lambda done, total, note: seen.append(done))
    workspace.stop_requested = lambda: stop_at is not None and bool(seen) and seen[-1] >= stop_at
    model = model or build()
    loop = Loop(**({"micro_rows": 4, "checkpoint_every": 3, "log_every": 1} | settings))
    evaluate = None
    if loop.evaluate_every:
        evaluate = lambda placed, step: {"held_out_nats": measure(model, counting_rows(99)).nats}  # noqa: E731
    progress = fit(
        model,
        batch_at,
        next_token,
        steps=steps,
        course=steady(Optimizer(lr=0.01), Schedule(shape="cosine"), steps),
        loop=loop,
        workspace=workspace,
        evaluate=evaluate,
    )
    return model, progress


def assert_same_weights(first, second):
    for (name, mine), (_, theirs) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("experts", [False, True])
def test_it_learns(tmp_path, experts):
    model, progress = train(tmp_path, steps=60, model=build(experts), evaluate_every=20)
    rows = read_metrics(tmp_path)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 3.5
    assert losses[-1] < 1.0
    assert [row["step"] for row in rows if "held_out_nats" in row] == [20, 40, 60]
    last = [row for row in rows if "loss" in row][-1]
    assert {"lr", "grad_norm", "tokens", "tokens_per_second", "mfu"} <= last.keys()
    assert ("expert_load_max_over_mean" in last) == ("router_loss" in last) == experts
    assert progress.tokens == 60 * (6 * 40 - 3 * 7)
    assert progress.labels == progress.tokens - 60 * 6
    assert progress.flops == pytest.approx(60 * 240 * train_flops(model.network, VOCABULARY, 40))


def gradients(micro_rows: int, rows, objective=next_token, denominator=labelled_tokens, experts: bool = False):
    model = build(experts)
    result = accumulate(model, rows, objective, denominator(rows), micro_rows)
    return result, [parameter.grad for parameter in model.parameters()]


def test_the_gradient_is_that_of_the_mean_over_all_labels_whatever_the_micro_batch():
    rows = to_rows(counting_rows(1))
    model = build(experts=False)
    output = model(rows["ids"], None, rows["documents"])
    logits = output.hidden_BTD[:, :-1] @ model.head_VD.T
    expected = F.cross_entropy(logits.flatten(0, 1), rows["labels"][:, 1:].flatten())
    expected.backward()
    for micro_rows in (1, 2, 4, 6, 100):
        result, grads = gradients(micro_rows, rows)
        torch.testing.assert_close(torch.tensor(result.loss), expected.detach())
        for grad, parameter in zip(grads, model.parameters(), strict=True):
            torch.testing.assert_close(grad, parameter.grad, atol=1e-6, rtol=1e-4)


def test_router_losses_enter_by_the_share_of_tokens():
    rows = to_rows(counting_rows(1))
    model = build()
    expected = 0.0
    for start, stop in ((0, 4), (4, 6)):
        documents = rows["documents"][start:stop]
        aux = model(rows["ids"][start:stop], None, documents).aux.detach()
        expected += float(aux) * float((documents >= 0).sum() / (rows["documents"] >= 0).sum())
    result, _ = gradients(4, rows, experts=True)
    assert float(result.metrics["router_loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_stopped_and_resumed_is_undisturbed_bit_for_bit(tmp_path, stop_at):
    whole, progress = train(tmp_path / "whole", evaluate_every=2)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stop_at=stop_at, evaluate_every=2)
    assert read_metrics(tmp_path / "parts")[-1]["step"] == stop_at
    resumed, after = train(tmp_path / "parts", evaluate_every=2)
    assert_same_weights(whole, resumed)
    assert (after.tokens, after.evaluation, after.expert_load) == (
        progress.tokens,
        progress.evaluation,
        progress.expert_load,
    )
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")


def untimed(folder: Path) -> list[dict]:
    timed = ("time", "tokens_per_second", "mfu", "flops_per_second")
    return [{key: value for key, value in row.items() if key not in timed} for row in read_metrics(folder)]


def test_a_finished_run_does_nothing_again(tmp_path):
    first, _ = train(tmp_path)
    rows = read_metrics(tmp_path)
    second, progress = train(tmp_path, batch_at=None)
    assert_same_weights(first, second)
    assert progress.step == 8
    assert read_metrics(tmp_path) == rows


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.train.conftest import counting_rows
from tests.train.test_loop import train

def batch_at(step, share):
    if step == int(sys.argv[2]):
        threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    return counting_rows(step)

train(Path(sys.argv[1]), batch_at=batch_at, steps=4000, checkpoint_every=2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_undisturbed(tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for step, seconds in ((3, "0.005"), (12, "0.013")):  # in a step, or in the writing of a checkpoint
        command = [sys.executable, "-c", KILLED, str(tmp_path / "parts"), str(step), seconds]
        assert subprocess.run(command, env=environment, cwd=root, check=False).returncode == -signal.SIGKILL
    last = read_metrics(tmp_path / "parts")[-1]["step"]
    assert last >= 12
    assert_same_weights(stopped(tmp_path / "whole", last + 3), stopped(tmp_path / "parts", last + 3))


def stopped(folder: Path, step: int):
    """The model of a run of 4,000 steps that is asked to stop after `step`."""
    model = build()
    with pytest.raises(Interrupted):
        train(folder, model=model, steps=4000, stop_at=step, checkpoint_every=2)
    return model


def test_divergence_is_one_sentence_and_keeps_the_last_checkpoint(tmp_path):
    model = build()

    def poison(step: int, share: Share):
        if step == 5:
            model.norm.weight.data[0] = float("nan")
        return counting_rows(step)

    with pytest.raises(GlassboxError, match="diverged at step 6: loss nan"):
        train(tmp_path, model=model, batch_at=poison)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000003"]


def test_bf16_learns_and_leaves_weights_in_fp32(tmp_path):
    model, _ = train(tmp_path, steps=40, precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert read_metrics(tmp_path)[-1]["loss"] < 2.0


def test_without_a_compiler_it_stays_eager(monkeypatch, caplog):
    from torch._inductor import cpp_builder, exc

    def absent():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    model = build()
    compile_blocks(model)
    assert "no C++ compiler" in caplog.text
    assert all(block._compiled_call_impl is None for block in model.blocks)


def test_a_batch_may_use_the_model_as_it_stands(tmp_path):
    model = build()
    norms: list[float] = []

    def batch_at(step: int, share: Share):
        norms.append(float(model.embedding.weight.detach().norm()))
        return counting_rows(step)

    train(tmp_path, model=model, batch_at=batch_at, steps=3)
    assert len(set(norms)) == 3


def test_rows_without_any_label_still_step(tmp_path):
    def batch_at(step: int, share: Share):
        batch = counting_rows(step)
        return batch | {"labels": np.full_like(batch["labels"], -100)}

    _, progress = train(tmp_path, steps=2, batch_at=batch_at)
    assert progress.labels == 0
    assert read_metrics(tmp_path)[-1]["loss"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("experts", [False, True])
def test_compiled_blocks_compute_what_eager_ones_do(experts: bool) -> None:
    """Loss and gradients of a step agree; needs a C++ compiler, as the set-up asks for one."""
    eager, compiled = build(experts), build(experts)
    compile_blocks(compiled)
    results = []
    for model in (eager, compiled):
        rows = to_rows(counting_rows(0))
        result = accumulate(model, rows, next_token, labelled_tokens(rows), 6)
        results.append((result.loss, [weight.grad for weight in model.parameters()]))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    for ours, theirs in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
