"""fp16: the loss scale follows torch's own, an overflow costs a step and nothing else, resume is exact."""

import pytest
import torch

import glassbox.train.loop as loop_module
import glassbox.train.precision as precision
from glassbox.errors import GlassboxError, Interrupted
from glassbox.ledger.workspace import read_metrics
from glassbox.recipe.loop import Loop
from glassbox.tokens.order import ALL, Share
from glassbox.train.losses import next_token
from glassbox.train.precision import compute_dtype, next_scale, set_precision
from glassbox.train.rows import labelled_tokens, to_rows
from glassbox.train.step import accumulate
from tests.train.conftest import build, counting_rows
from tests.train.test_loop import assert_same_weights, train, untimed


def small(step: int, share: Share = ALL):
    return counting_rows(step, share, rows=2, context=16, pad=3)


@pytest.fixture
def on_gpu_terms(monkeypatch):
    """fp16 on the CPU, which a recipe cannot ask for: slow, but it computes."""
    monkeypatch.setattr(precision, "compute_dtype", lambda loop, device: torch.float16)
    monkeypatch.setattr("glassbox.train.meter.peak_flops", lambda device, dtype: 1e9)


def test_the_scale_is_that_of_torchs_scaler():
    theirs = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=2000)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scale, held = 65536.0, 0
    for step in range(4500):
        finite = step not in (3, 4, 2900)
        weight.grad = torch.full((1,), 1.0 if finite else float("inf"))
        theirs.scale(torch.ones(1))  # builds its state
        theirs.step(optimizer)
        theirs.update()
        scale, held = next_scale(scale, held, finite)
        assert scale == theirs.get_scale()
    assert scale == 16384.0


def test_the_scale_is_divided_out_of_the_gradient():
    rows = to_rows(counting_rows(1))
    plain, scaled = build(), build()
    accumulate(plain, rows, next_token, labelled_tokens(rows), 4)
    accumulate(scaled, rows, next_token, labelled_tokens(rows), 4, scale=1024.0)
    for mine, theirs in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_it_learns(tmp_path, on_gpu_terms):
    model, progress = train(tmp_path, steps=30, model=build(False), batch_at=small, precision="fp16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    last = read_metrics(tmp_path)[-1]
    assert last["loss"] < 3.5 < read_metrics(tmp_path)[0]["loss"]
    assert (last["loss_scale"], last["skipped_steps"]) == (progress.loss_scale, progress.skipped)


def test_an_overflow_skips_the_step_and_halves_the_scale(tmp_path, on_gpu_terms, monkeypatch, caplog):
    model, before = build(experts=False), []

    def batch_at(step: int, share: Share):
        before.append({name: value.clone() for name, value in model.state_dict().items()})
        return small(step, share)

    def poisoned(*arguments, **named):
        result = accumulate(*arguments, **named)
        if len(before) == 3:
            model.norm.weight.grad[0] = float("inf")
        return result

    monkeypatch.setattr(loop_module, "accumulate", poisoned)
    _, progress = train(tmp_path, steps=5, model=model, batch_at=batch_at, precision="fp16")
    assert progress.skipped == 1
    assert progress.step == 5
    assert progress.loss_scale == 32768.0
    assert progress.steps_at_scale == 2
    assert "step 3: overflow in fp16, skipped" in caplog.text
    assert all(torch.equal(value, before[3][name]) for name, value in before[2].items())
    assert not torch.equal(before[4]["norm.weight"], before[3]["norm.weight"])


def test_what_stays_infinite_is_a_divergence(tmp_path, on_gpu_terms):
    model = build(experts=False)
    model.norm.weight.data[0] = float("nan")
    with pytest.raises(GlassboxError, match="diverged at step 17"):
        train(tmp_path, steps=40, model=model, batch_at=small, precision="fp16")


def test_stopped_and_resumed_is_undisturbed_bit_for_bit(tmp_path, on_gpu_terms, monkeypatch):
    monkeypatch.setattr(precision, "GROWTH_STEPS", 3)
    whole, progress = train(tmp_path / "whole", model=build(False), batch_at=small, precision="fp16")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", model=build(False), batch_at=small, stop_at=4, precision="fp16")
    parts, after = train(tmp_path / "parts", model=build(False), batch_at=small, precision="fp16")
    assert_same_weights(whole, parts)
    assert (after.loss_scale, after.steps_at_scale) == (progress.loss_scale, progress.steps_at_scale)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "parts")


@pytest.mark.parametrize(
    ("has_bf16", "dtype", "word"), [(True, torch.bfloat16, "bf16"), (False, torch.float32, "fp32")]
)
def test_a_cpu_computes_in_another_type_and_says_so(monkeypatch, caplog, has_bf16, dtype, word):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: has_bf16)
    assert compute_dtype(Loop(precision="fp16"), "cpu") == dtype
    assert f"precision fp16: not native on a CPU, computing in {word}" in caplog.text
    assert compute_dtype(Loop(precision="fp16"), "cuda") == torch.float16
    model = build(experts=False)
    set_precision(model, Loop(precision="float8"), "cpu")
    assert model.compute_dtype == dtype
    assert f"precision float8: a CPU has no float8 products, computing in {word}" in caplog.text
