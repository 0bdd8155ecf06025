"""Rank correlations with ties, against a plain implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.auditing.correlations import between_share, mean_ranks, spearman
from delta_attnmask.selecting.strata import strata_of_values

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(VALUES)
def test_equal_values_share_the_mean_of_their_ranks(values):
    expected = [sum(o < v for o in values) + (values.count(v) - 1) / 2 for v in values]
    assert mean_ranks(np.array(values)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_is_the_correlation_of_the_ranks(pairs):
    first, second = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
        return
    expected = np.corrcoef(mean_ranks(first), mean_ranks(second))[0, 1]
    assert found == pytest.approx(expected, abs=1e-4)
    assert spearman(first, first) == 1
    assert spearman(np.exp(first), -second) == pytest.approx(-found, abs=1e-4)


def test_rows_without_a_number_are_left_out():
    nan = np.nan
    assert spearman(np.array([1, nan, 2, 3, 4]), np.array([1, 5, 2, nan, 3])) == 1
    assert spearman(np.array([1.0, nan]), np.array([nan, 1.0])) is None


def test_the_share_between_strata():
    strata = strata_of_values("aabb")
    assert between_share(np.array([1.0, 1, 2, 2]), strata) == 1
    assert between_share(np.array([1.0, 2, 1, 2]), strata) == 0
    assert between_share(np.ones(4), strata) is None
