"""Schedules against closed forms and torch's and transformers' own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.recipe.optimizer import Schedule
from glassbox.train.schedule import factor


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
