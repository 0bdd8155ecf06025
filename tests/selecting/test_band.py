"""A band leaves out the very top, but never so much that the budget can't be filled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.band import band, band_set
from delta_attnmask.selecting.select import select_rows
from delta_attnmask.selection import Budget
from tests.selecting.tables import make_table


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_equals_a_stable_sort(values, data):
    n_keep = data.draw(st.integers(1, len(values)))
    n_skip = data.draw(st.integers(0, len(values) - n_keep))
    order = sorted(range(len(values)), key=lambda row: (-values[row], row))
    assert band_set(np.array(values, dtype=float), n_keep, n_skip).tolist() == sorted(order[n_skip : n_skip + n_keep])


def test_the_extreme_share_is_left_out():
    table = make_table([float(row) for row in range(100)])
    selection = select_rows(table, Budget.parse("3"), rule="band", skip_top=0.05)
    assert selection.rows.tolist() == [94, 93, 92]
    assert selection.details == {"n_skipped": 5, "ceiling": 94.0, "threshold": 92.0}
    assert select_rows(table, Budget.parse("98"), rule="band", skip_top=0.05).rows[0] == 97
    quota = select_rows(table, Budget.parse("7"), rule="quota", columns=["n_answer_tokens"], skip_top=0.1)
    assert quota.rows.tolist() == [92, 91, 90, 89, 88, 87, 86]  # one of each seven, below the best one


@pytest.mark.parametrize("skip_top", [-0.1, 1.0])
def test_no_share(skip_top):
    with pytest.raises(SettingsError, match="expected a share such as 2%"):
        band(skip_top)
