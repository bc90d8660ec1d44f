"""Memory of a device by hand; `tests/train/parallel/test_memory.py` holds it against running processes."""

from glassbox.recipe.loop import Loop, Parallel, sizes_for
from glassbox.recipe.memory import Memory, train_memory
from glassbox.recipe.network import Network
from glassbox.recipe.size import parameters
from tests.recipe.test_size import NETWORKS


def memory(network: Network, processes: int = 1, *, micro_rows: int = 1, moments: int = 2, **settings) -> Memory:
    """Of rows of 64 tokens, a vocabulary of 100."""
    plan = Parallel(**{name: settings.pop(name) for name in list(settings) if name in Parallel.model_fields})
    loop = Loop(**{"precision": "bf16", **settings}, micro_rows=micro_rows, parallel=plan)
    return train_memory(network, 100, 64 * micro_rows, loop, sizes_for(plan, processes), moments=moments)


def test_recomputation_saves_activations_alone() -> None:
    for network in NETWORKS:
        plain, selective, full = (memory(network, recompute=how) for how in ("none", "selective", "full"))
        if network.layers > 2:
            assert plain.activations > selective.activations > full.activations
        assert plain.weights + plain.optimizer == full.weights + full.optimizer


def test_memory_counts_weights_gradients_and_moments_in_fp32() -> None:
    for network in NETWORKS:
        found, total = memory(network), parameters(network, 100).total
        assert (found.weights, found.gradients, found.optimizer) == (4 * total, 4 * total, 8 * total)
        assert found.total > 16 * total
        assert memory(network, moments=1).optimizer == 4 * total


def test_processes_share_out_moments_gradients_and_weights() -> None:
    network = NETWORKS[0]
    total = parameters(network, 100).total
    block = 48 * (48 + 2 * 16 + 48) + 3 * 48 * 96 + 2 * 48
    ends = 2 * 100 * 48 + 48
    found = {zero: memory(network, 4, zero=zero, replicate=2) for zero in (1, 2, 3)}
    assert total == 3 * block + ends
    assert {one.optimizer for one in found.values()} == {4 * total}
    assert [found[zero].gradients for zero in (1, 2, 3)] == [4 * total, 2 * total, 2 * total]
    assert [found[zero].weights for zero in (1, 2)] == [2 * total + 4 * total] * 2
    assert found[3].weights == 2 * total + 4 * (2 * block + ends)
    assert len({one.activations for one in found.values()}) == 1


def test_each_dimension_divides_what_is_its_own() -> None:
    dense, routed = NETWORKS[0], NETWORKS[2]
    alone = memory(dense, micro_rows=4)
    tensor, context, pipeline = (
        memory(dense, 2, micro_rows=4, **{name: 2}) for name in ("tensor", "context", "pipeline")
    )
    cut = 3 * (48 * (48 + 2 * 16 + 48) + 3 * 48 * 96)
    assert tensor.optimizer == alone.optimizer - 8 * cut / 2
    assert context.optimizer == alone.optimizer / 2
    assert tensor.activations == context.activations == alone.activations / 2
    block = parameters(dense, 100).total - 2 * 100 * 48 - 48
    assert pipeline.optimizer == 8 * (block * 2 / 3 + 100 * 48)  # two layers and the embedding, one and the head
    assert pipeline.activations == alone.activations
    experts = 2 * 8 * 3 * 32 * 48
    total = parameters(routed, 100).total
    assert memory(routed, 2, shard=2, expert=2).optimizer == 8 * (total / 2)
    assert memory(routed, 4, shard=2, expert=2, pipeline=2).optimizer < 8 * (total / 2)
    assert memory(routed, 2, shard=2, expert=2, zero=2).weights == 4 * (total / 2) + 4 * (total - experts)
