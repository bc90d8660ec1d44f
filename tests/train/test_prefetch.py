"""Batches made ahead: the same sequence, one step ahead at most, errors in their place, no thread left."""

import threading
from contextlib import closing

import numpy as np
import pytest

from glassbox.train.prefetch import ahead, in_thread
from glassbox.train.rows import to_rows


def batch(step: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(step).integers(0, 9, (3, 4))
    return {"ids": ids, "labels": ids}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_the_sequence_is_that_of_the_steps() -> None:
    plain = [to_rows(batch(step)) for step in range(5, 12)]
    for found in (list(ahead(batch, 5, 12)), list(in_thread(lambda step: to_rows(batch(step)), 5, 12))):
        assert [rows["ids"].tolist() for rows in found] == [rows["ids"].tolist() for rows in plain]
    assert list(in_thread(lambda step: to_rows(batch(step)), 3, 3)) == []
    assert threads() == []


def test_it_is_one_step_ahead_and_no_more() -> None:
    made: list[int] = []
    ready = {step: threading.Event() for step in range(6)}

    def make(step: int) -> dict:
        made.append(step)
        ready[step].set()
        return {}

    with closing(in_thread(make, 0, 6)) as rows:
        for step in range(3):
            next(rows)
            assert ready[step + 1].wait(5), "the next is made while this one is in use"
            assert made == list(range(step + 2))
    assert made == [0, 1, 2, 3]
    assert threads() == []


def test_an_error_comes_at_its_own_step() -> None:
    def make(step: int) -> dict:
        if step == 2:
            raise ValueError("step 2 is broken")
        return {"step": step}

    rows = in_thread(make, 0, 5)
    assert [next(rows), next(rows)] == [{"step": 0}, {"step": 1}]
    with pytest.raises(ValueError, match="step 2"):
        next(rows)
    assert threads() == []
