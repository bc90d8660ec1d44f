"""The threshold of a share, against sorting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glassbox.curate.models.selection import threshold_for_share


@pytest.mark.parametrize(("share", "expected"), [(0.1, 10.0), (0.11, 9.0), (0.5, 6.0), (1.0, 1.0)])
def test_the_best_tenth_of_ten(share, expected):
    assert threshold_for_share(np.arange(1.0, 11.0), np.ones(10, np.int64), share) == expected


def test_bytes_count_and_not_documents():
    assert threshold_for_share(np.array([0.9, 0.5, 0.1]), np.array([10, 80, 10]), 0.5) == 0.5


def test_documents_without_a_score_have_no_part_in_it():
    assert threshold_for_share(np.array([np.nan, 1.0, 0.0]), np.array([1000, 1, 1]), 0.5) == 1.0
    assert threshold_for_share(np.array([np.nan]), np.array([1]), 0.5) == float("-inf")


@settings(deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            arrays.arrays(np.float32, n, elements=st.integers(0, 8)),
            arrays.arrays(np.int64, n, elements=st.integers(1, 99)),
        )
    ),
    st.floats(0.01, 1),
)
def test_it_is_the_largest_that_holds_the_share(documents, share):
    scores, sizes = documents
    found = threshold_for_share(scores, sizes, share)
    assert sizes[scores >= found].sum() >= share * sizes.sum() * (1 - 1e-9)
    assert sizes[scores > found].sum() < share * sizes.sum()
