"""Which layers a pipeline's stages get."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.errors import RequestError
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Parallel
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.recipe.size import forward_flops, products
from glassbox.recipe.stretches import division, stage_numbers
from glassbox.train.parallel.stages import stretches

DENSE = Network(dim=32, layers=12, hidden=48, attention=Attention(heads=4, kv_heads=2))
EXPERTS = DENSE.model_copy(update={"experts": Experts(count=4, top_k=2, hidden=16, shared=1, first_dense=1)})


@pytest.mark.parametrize(("schedule", "index", "numbers"), [("1F1B", 1, [1]), ("Interleaved1F1B", 1, [1, 5])])
def test_stages_go_round(schedule, index, numbers):
    assert stage_numbers(Parallel(pipeline=4, schedule=schedule), index) == numbers


@pytest.mark.parametrize("schedule", ["ZBVZeroBubble", "DualPipeV"])
def test_stages_make_a_v(schedule):
    plan = Parallel(pipeline=4, schedule=schedule, zero=2)
    assert [stage_numbers(plan, index) for index in range(4)] == [[0, 7], [1, 6], [2, 5], [3, 4]]


@given(layers=st.integers(2, 9), stages=st.integers(1, 4), vocabulary=st.integers(1, 3000), depth=st.integers(0, 2))
def test_no_division_is_evener(layers, stages, vocabulary, depth):
    ahead = MultiToken(depth=depth) if depth else None
    network = EXPERTS.model_copy(update={"layers": layers, "multi_token": ahead})
    if stages > layers:
        with pytest.raises(RequestError, match="lower `pipeline`"):
            division(network, vocabulary, stages)
        return
    costs, end = products(network, vocabulary)

    def squares(cuts: tuple[int, ...]) -> int:
        sums = [sum(costs[start:stop]) for start, stop in pairwise((0, *cuts, layers))]
        sums[-1] += end
        return sum(cost**2 for cost in sums)

    found = division(network, vocabulary, stages)
    assert [layer for part in found for layer in part] == list(range(layers))
    assert all(found)
    least = min(squares(cuts) for cuts in combinations(range(1, layers), stages - 1))
    assert squares(tuple(part.start for part in found[1:])) == least


def test_costs_are_those_of_a_forward_pass():
    network = EXPERTS.model_copy(update={"multi_token": MultiToken(depth=2)})
    layers, end = products(network, 500)
    attention = 4 * len(layers) * 32 + 4 * 2 * 32  # one key for each token
    assert 2 * (sum(layers) + end) + attention == forward_flops(network, 500, 1, ahead=True)


def test_the_head_takes_layers_from_the_last_stage():
    layer = products(DENSE, 1)[0][0]
    assert [len(part) for part in division(DENSE, 1, 4)] == [3, 3, 3, 3]
    assert [len(part) for part in division(DENSE, 2 * layer // 32, 4)] == [3, 3, 4, 2]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("schedule", ["1F1B", "Interleaved1F1B", "DualPipeV"])
def test_stretches_have_all_tensors_of_the_network_by_their_names(tied, depth, schedule):
    ahead = MultiToken(depth=depth) if depth else None
    network = EXPERTS.model_copy(update={"multi_token": ahead, "tie_embeddings": tied})
    model = Transformer(network, 61)
    model.init_weights(0)
    plan = Parallel(pipeline=2, schedule=schedule, zero=2)
    parts = [part for index in range(2) for part in stretches(model, plan, index)]
    found = [name for part in parts for name in part.state_dict()]
    assert set(found) == model.state_dict().keys()
    twice = {name for name in found if found.count(name) > 1}
    assert twice == ({"embedding.weight"} if tied or depth else set())
    assert sum(part.ends for part in parts) == 1
