"""Budgets add up, stay within the strata, never favour the smaller one, and are filled as a loop would."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.budgets import fill_budgets, share_out
from delta_attnmask.selecting.strata import renumber

SIZES = st.lists(st.integers(0, 10) | st.integers(0, 100_000), min_size=1, max_size=12).filter(any)
TEMPERATURES = st.sampled_from([0.2, 0.5, 1.0, 2.0, 7.0, 1000.0])


@given(SIZES, st.integers(1, 1_200_000), TEMPERATURES)
def test_they_add_up_and_are_monotone(sizes, n_keep, temperature):
    sizes = np.array(sizes)
    budgets = share_out(n_keep, sizes, temperature)
    assert budgets.sum() == min(n_keep, sizes.sum())
    assert (budgets >= 0).all()
    assert (budgets <= sizes).all()
    order = np.argsort(sizes, kind="stable")
    is_larger = np.diff(sizes[order]) > 0
    assert (np.diff(budgets[order])[is_larger] >= 0).all()


@given(
    st.lists(st.integers(0, 10) | st.integers(0, 10**9), min_size=1, max_size=12).filter(any),
    st.integers(1, 10**10),
    st.floats(0.05, 100),
)
@example([1, 10_000_000], 1000, 0.1)
def test_no_temperature_breaks_the_budget(sizes, n_keep, temperature):
    sizes = np.array(sizes)
    budgets = share_out(n_keep, sizes, temperature)
    assert budgets.sum() == min(n_keep, sizes.sum())
    assert ((budgets >= 0) & (budgets <= sizes)).all()


@given(SIZES, st.integers(1, 1_200_000), TEMPERATURES, st.integers(1, 20))
def test_the_minimum_comes_first(sizes, n_keep, temperature, minimum):
    sizes = np.array(sizes)
    least = np.minimum(sizes, minimum)
    if least.sum() > min(n_keep, sizes.sum()):
        with pytest.raises(SettingsError, match=f"min_per_stratum={minimum}"):
            share_out(n_keep, sizes, temperature, minimum)
        return
    budgets = share_out(n_keep, sizes, temperature, minimum)
    assert budgets.sum() == min(n_keep, sizes.sum())
    assert (budgets >= least).all()
    assert (budgets <= sizes).all()


@given(SIZES, st.integers(1, 1_000_000))
def test_each_share_is_within_a_row_of_the_proportional_one(sizes, n_keep):
    sizes = np.array(sizes)
    n_keep = min(n_keep, int(sizes.sum()))
    assert (np.abs(share_out(n_keep, sizes) - n_keep * sizes / sizes.sum()) < 1).all()


@pytest.mark.parametrize(
    ("n_keep", "sizes", "options", "budgets"),
    [
        (10, [50, 30, 20], {}, [5, 3, 2]),
        (10, [55, 25, 20], {}, [6, 2, 2]),  # .5 and .5 remain: the larger one gets it
        (3, [10, 10, 10, 10], {}, [1, 1, 1, 0]),
        (12, [100, 4, 1], {"temperature": 1e9}, [7, 4, 1]),  # even shares, and what small ones can't fill
        (14, [100, 25], {"temperature": 2}, [9, 5]),  # 10 : 5
        (10, [98, 1, 1], {"minimum": 1}, [8, 1, 1]),
        (10, [90, 10, 0], {"minimum": 3}, [7, 3, 0]),
        (99, [3, 2], {}, [3, 2]),
        (1, [0, 1, 1, 7, 10865], {"temperature": 0.2}, [0, 0, 0, 0, 1]),  # weights 1e20 apart
        (1000, [1, 10_000_000], {"temperature": 0.1}, [0, 1000]),  # 1e70 apart
        (5_000_001, [1, 5_000_000, 5_000_000], {"temperature": 0.05}, [0, 2_500_001, 2_500_000]),
    ],
)
def test_examples(n_keep, sizes, options, budgets):
    assert share_out(n_keep, np.array(sizes), **options).tolist() == budgets


ROWS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0])), min_size=1, max_size=60)


def by_a_loop(values, strata, budgets, skip_top):
    kept = []
    for code in range(strata.n):
        members = sorted(np.flatnonzero(strata.codes == code), key=lambda row: (-values[row], row))
        n_skip = min(int(skip_top * len(members)), len(members) - budgets[code])
        kept += members[n_skip : n_skip + budgets[code]]
    return sorted(kept)


@given(ROWS, st.data(), st.sampled_from([1, 100, 30_000]), st.sampled_from([0.0, 0.3]))
def test_filling_equals_a_loop(rows, data, spread, skip_top):
    codes, values = (np.array(column) for column in zip(*rows, strict=True))
    strata = renumber(codes * spread, 5 * spread)
    budgets = share_out(data.draw(st.integers(1, len(rows))), strata.sizes)
    kept = fill_budgets(values, strata, budgets, skip_top)
    assert sorted(kept.tolist()) == by_a_loop(values, strata, budgets, skip_top)
    assert (np.diff(values[kept]) <= 0).all()


def test_more_strata_than_16_bits_hold():
    rng = np.random.default_rng(0)
    strata, values = renumber(rng.integers(0, 70_000, 200_000), 70_000), rng.normal(size=200_000)
    assert strata.n > 1 << 16
    kept = fill_budgets(values, strata, share_out(40_000, strata.sizes))
    assert len(kept) == 40_000
    best = np.full(strata.n, -np.inf)
    np.maximum.at(best, strata.codes, values)
    kept_best = np.full(strata.n, -np.inf)
    np.maximum.at(kept_best, strata.codes[kept], values[kept])
    has_rows = np.isfinite(kept_best)
    assert (kept_best[has_rows] == best[has_rows]).all()
