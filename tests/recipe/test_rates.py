"""Schedules against closed forms and torch's and transformers' own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.recipe.network import Attention, Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.rates import factor, phase_rate
from glassbox.recipe.training import PretrainStage


def curve(total: int, **settings) -> list[float]:
    return [factor(Schedule(**settings), step, 1, total) for step in range(total)]


def test_closed_forms():
    assert curve(4, shape="constant", warmup=0.5) == [0.5, 1, 1, 1]
    assert curve(5, shape="linear", warmup=0) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert curve(4, shape="linear", warmup=0, floor=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    assert curve(10, shape="linear", warmup=0.2, decay=0.4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)]
    assert curve(10, shape="cosine", warmup=0.2, floor=0.1) == pytest.approx([0.5, 1, *cosine])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_after_warm_up_equals_transformers(shape):
    import torch
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[shape]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, 10, 50)
    theirs = []
    for _ in range(50):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    ours = curve(50, shape=shape, warmup=0.2)
    assert ours[10:] == pytest.approx(theirs[10:])
    assert ours[:9] == pytest.approx(theirs[1:10])  # theirs begins with a step at rate 0


@given(
    st.sampled_from(["constant", "linear", "cosine", "sqrt"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 60),
)
def test_every_step_moves_between_floor_and_peak(shape, warmup, decay, floor, total):
    values = curve(total, shape=shape, warmup=warmup, decay=decay, floor=floor)
    assert all(0 < value <= 1 + 1e-12 for value in values)
    warm = round(warmup * total)
    assert values[:warm] == sorted(values[:warm])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(values[warm:], values[warm + 1 :], strict=False))
    assert all(value >= floor - 1e-12 for value in values[warm:])


def test_exponential_decay_and_a_warm_up_in_steps():
    halves = curve(12, shape="exponential", warmup=4, start=0.2, decay=4, floor=1 / 16)
    assert halves == pytest.approx([0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1, 1 / 2, 1 / 4, 1 / 8])


def stage(phases: list[dict], **settings) -> PretrainStage:
    network = Network(dim=32, layers=1, hidden=32, attention=Attention(heads=2, kv_heads=2))
    rows = {"mixture": {"a": 1.0}, "context": 10, "rows": 1}
    named = [{"name": str(n), **rows, **phase} for n, phase in enumerate(phases)]
    return PretrainStage(kind="pretrain", model=network, phases=named, optimizer=Optimizer(lr=2.0), **settings)


def test_the_stages_schedule_spans_the_phases_without_their_own():
    config = stage(
        [
            {"tokens": 200},
            {"tokens": 500, "schedule": {"shape": "linear", "warmup": 0}, "optimizer": {"lr": 3.0}},
            {"tokens": 300, "optimizer": {"lr": 1.0}},
        ],
        schedule=Schedule(shape="linear", warmup=100, decay=1),
    )
    for done in range(0, 300, 10):
        number, inside = (0, done) if done < 200 else (2, done - 200)
        peak = 2.0 if number == 0 else 1.0
        assert phase_rate(config, number, inside, 10) == peak * factor(config.schedule, done, 10, 500)
    assert [phase_rate(config, 1, done, 10) for done in (0, 250)] == pytest.approx([3.0, 1.5])
