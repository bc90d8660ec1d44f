"""Sorting on disk gives what sorting in memory gives, whatever the memory and the blocks."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassbox.curate.repeats.sorting import sorted_blocks


def plain(records: np.ndarray) -> np.ndarray:
    return records[np.lexsort(records.T[::-1])]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    width=st.integers(1, 3),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=8),
    values=st.sampled_from([1, 2, 50, 2**64 - 1]),
    memory=st.sampled_from([1 << 8, 1 << 12, 1 << 16, 1 << 24]),
    seed=st.integers(0, 9),
)
def test_any_records_come_out_in_order(
    tmp_path: Path, width: int, sizes: list[int], values: int, memory: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    blocks = [draw.integers(0, values, (size, width), np.uint64, endpoint=True) for size in sizes]
    found = list(sorted_blocks(iter(blocks), tmp_path, memory))
    together = np.concatenate(found) if found else np.zeros((0, width), np.uint64)
    assert np.array_equal(together, plain(np.concatenate(blocks)))
    assert not list(tmp_path.iterdir())


def test_more_runs_than_are_merged_at_a_time(tmp_path: Path) -> None:
    records = np.random.default_rng(0).integers(0, 5000, (4000, 2), np.uint64)
    records[1000:1500, 0] = 7
    memory = 4 * 16 * 200
    found = list(sorted_blocks(iter([records]), tmp_path, memory))
    assert len(found) > 10
    assert max(block.nbytes for block in found) <= memory
    assert np.array_equal(np.concatenate(found), plain(records))


def test_what_is_held_is_bounded_by_the_memory(tmp_path: Path) -> None:
    memory = 1 << 18
    held = 0

    def blocks():  # type: ignore[no-untyped-def]
        nonlocal held
        draw = np.random.default_rng(0)
        for _ in range(64):
            yield draw.integers(0, 2**63, (4096, 2), np.uint64)
            held = max(held, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    sizes = [block.nbytes for block in sorted_blocks(blocks(), tmp_path, memory)]
    assert max(sizes) <= memory
    # Records wait on disk, not in memory: all but what one block of the sort takes.
    assert held >= 63 * 4096 * 16 - memory
    assert sum(sizes) == 64 * 4096 * 16
