"""Batches made ahead: the same sequence, one step ahead at most, errors in their place, no thread left."""

import threading
from typing import Any

import pytest
import torch

from glassbox.train.prefetch import ahead, in_thread
from glassbox.train.rows import Rows


def make(step: int) -> Rows:
    return {"ids": torch.randint(9, (3, 4), generator=torch.Generator().manual_seed(step))}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("steps", [[*range(5, 12)], [0, 1, 2, 0, 1, 5, 5, 11, 6]])
def test_any_sequence_of_steps_gets_its_own_rows(steps: list[int]) -> None:
    plain = [make(step)["ids"].tolist() for step in steps]
    with in_thread(make, 12) as rows_at:
        assert [rows_at(step)["ids"].tolist() for step in steps] == plain
    with ahead(make, 12, "cpu") as rows_at:
        assert rows_at is make
    assert threads() == []


def test_it_is_one_step_ahead_and_no_more() -> None:
    made: list[int] = []
    ready = {step: threading.Event() for step in range(6)}

    def noted(step: int) -> Rows:
        made.append(step)
        ready[step].set()
        return {}

    with in_thread(noted, 6) as rows_at:
        for step in range(3):
            rows_at(step)
            assert ready[step + 1].wait(5), "the next is made while this one is in use"
            assert made == list(range(step + 2))
    assert made == [0, 1, 2, 3]
    with in_thread(noted, 6) as rows_at:
        rows_at(5)
    assert made == [0, 1, 2, 3, 5], "there is no step 6"
    assert threads() == []


def test_an_error_comes_at_its_own_step_and_leaves_no_thread() -> None:
    def broken(step: int) -> Any:
        if step == 2:
            raise ValueError("step 2 is broken")
        return step

    def both(*steps: int) -> list[Any]:
        with in_thread(broken, 5) as rows_at:
            return [rows_at(step) for step in steps]

    assert both(0, 1) == [0, 1], "the one that is not asked for is not raised"
    for steps in ((0, 1, 2), (2,)):
        with pytest.raises(ValueError, match="step 2"):
            both(*steps)
    assert threads() == []
