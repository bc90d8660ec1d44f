"""Schedules played through: complete, nothing waits for ever, and idle time and activations are as published."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.recipe.loop import Parallel
from glassbox.train.parallel.schedules import BACKWARD, FORWARD, INPUT, PAIR, WEIGHT, Action, actions, fitting
from glassbox.train.parallel.simulate import play, steps, table

PLANS = [
    {"schedule": "1F1B"},
    {"schedule": "Interleaved1F1B"},
    {"schedule": "Interleaved1F1B", "overlap": True, "expert": 2},
    {"schedule": "InterleavedZeroBubble"},
    {"schedule": "ZBVZeroBubble"},
    {"schedule": "DualPipeV"},
]


def plan_of(given: dict, pipeline: int) -> Parallel:
    return Parallel(pipeline=pipeline, zero=2, **given)


@settings(deadline=None)
@given(given=st.sampled_from(PLANS), pipeline=st.integers(2, 5), count=st.integers(1, 24))
def test_every_micro_batch_passes_every_stage_and_nothing_waits_for_ever(given, pipeline, count):
    plan = plan_of(given, pipeline)
    count = fitting(plan, count)
    orders = actions(plan, count)
    found = sorted(step[:3] for order in orders for action in order for step in steps(action))
    split = {step[:2] for step in (one[:3] for one in found) if step[1] == INPUT}
    expected = []
    for stage in range(plan.stages):
        for micro in range(count):
            expected.append((stage, FORWARD, micro))
            whole = (stage, BACKWARD, micro)
            expected += [whole] if whole in found else [(stage, INPUT, micro), (stage, WEIGHT, micro)]
    assert found == sorted(expected)
    assert not split or plan.schedule in ("InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
    played = play(orders, plan.stages)
    assert 0 <= played.idle < 1
    assert sum(played.busy) == 3 * plan.stages * count


@settings(deadline=None)
@given(given=st.sampled_from([PLANS[2], PLANS[5]]), pipeline=st.integers(2, 5), count=st.integers(1, 24))
def test_the_two_of_a_pair_belong_to_different_micro_batches(given, pipeline, count):
    plan = plan_of(given, pipeline)
    orders = actions(plan, fitting(plan, count))
    pairs = [steps(action) for order in orders for action in order if action.computation_type == PAIR]
    for forward, backward in pairs:
        assert (forward.computation_type, backward.computation_type) == (FORWARD, BACKWARD)
        assert forward.microbatch_index != backward.microbatch_index


@settings(deadline=None)
@given(given=st.sampled_from(PLANS), pipeline=st.integers(2, 5), count=st.integers(1, 40))
def test_fitting_is_the_least_number_that_a_schedule_takes(given, pipeline, count):
    plan = plan_of(given, pipeline)

    def taken(number: int) -> bool:
        try:
            actions(plan, number)
        except ValueError:
            return False
        return True

    found = fitting(plan, count)
    assert taken(found)
    assert not any(taken(number) for number in range(count, found))


@pytest.mark.parametrize(("pipeline", "count"), [(2, 4), (4, 8), (4, 16), (5, 10)])
def test_1f1b_idles_and_keeps_as_published(pipeline, count):
    """(p - 1)(F + B) of idle time and p micro-batches' activations on the first process (arXiv:2104.04473)."""
    plan = plan_of(PLANS[0], pipeline)
    played = play(actions(plan, count), plan.stages)
    assert played.units == 3 * (count + pipeline - 1)
    assert played.peak == list(range(pipeline, 0, -1))
    interleaved = plan_of(PLANS[1], pipeline)
    twice = play(actions(interleaved, count), interleaved.stages)
    assert twice.units - sum(twice.busy) / pipeline == 3 * (pipeline - 1)  # half as long in halves of the layers


@pytest.mark.parametrize(("overlap", "warmup"), [(False, 10), (True, 11)])
def test_overlap_takes_one_step_more_of_warm_up(overlap, warmup):
    """dots.llm1 (arXiv:2506.05767), figure 2: four processes, two stretches each."""
    plan = plan_of(PLANS[2] if overlap else PLANS[1], 4)
    first = actions(plan, 8)[0]
    kinds = [action.computation_type for action in first]
    assert kinds.index(PAIR if overlap else BACKWARD) - (not overlap) == warmup
    assert all(kind == FORWARD for kind in kinds[:warmup])


def test_orders_that_wait_for_each_other_are_refused():
    first = [Action(0, BACKWARD, 0), Action(0, FORWARD, 0)]
    with pytest.raises(ValueError, match="wait for each other"):
        play([first, [Action(1, FORWARD, 0), Action(1, BACKWARD, 0)]], 2)


def test_the_table_of_the_documentation(request):
    page = (request.config.rootpath / "docs/parallel.md").read_text()
    assert "\n".join(table(4, (8, 16, 32))) in page
