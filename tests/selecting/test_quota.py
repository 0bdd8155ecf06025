"""A quota keeps the best rows of each stratum, as a plain loop over sorted rows would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting import quota as module
from delta_attnmask.selecting.mix import distortion
from delta_attnmask.selecting.quota import quota, quota_set
from delta_attnmask.selecting.select import select_rows
from delta_attnmask.selecting.shares import share_out
from delta_attnmask.selecting.strata import renumber, strata_of
from delta_attnmask.selection import Budget
from tests.selecting.tables import make_table, skewed_deltas

ROWS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0])), min_size=1, max_size=60)


def by_a_loop(values, strata, budgets, skip_top):
    kept = []
    for code in range(strata.n):
        members = sorted(np.flatnonzero(strata.codes == code), key=lambda row: (-values[row], row))
        n_skip = min(int(skip_top * len(members)), len(members) - budgets[code])
        kept += members[n_skip : n_skip + budgets[code]]
    return sorted(kept)


@pytest.mark.parametrize("small", [0, 3, 1000])  # strata one by one, some of each, all together
@given(ROWS, st.data(), st.sampled_from([1, 30_000]), st.sampled_from([0.0, 0.3]))
def test_equals_a_loop(small, rows, data, spread, skip_top):
    codes, values = (np.array(column) for column in zip(*rows, strict=True))
    strata = renumber(codes * spread, 5 * spread)
    budgets = share_out(data.draw(st.integers(1, len(rows))), strata.sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", small)
        kept = quota_set(values, strata, budgets, skip_top)
    assert kept.tolist() == by_a_loop(values, strata, budgets, skip_top)


def test_more_strata_than_16_bits_hold():
    rng = np.random.default_rng(0)
    strata, values = renumber(rng.integers(0, 70_000, 200_000), 70_000), rng.normal(size=200_000)
    assert strata.n > 1 << 16
    kept = quota_set(values, strata, share_out(40_000, strata.sizes))
    assert len(kept) == 40_000
    best = np.full(strata.n, -np.inf)
    np.maximum.at(best, strata.codes, values)
    kept_best = np.full(strata.n, -np.inf)
    np.maximum.at(kept_best, strata.codes[kept], values[kept])
    has_rows = np.isfinite(kept_best)
    assert (kept_best[has_rows] == best[has_rows]).all()


def test_the_mix_stays_where_the_plain_top_skews_it():
    deltas, sources = skewed_deltas(1000)
    table = make_table(deltas, sources, n_chunks=3)
    mix = strata_of(table, ["source"])
    kept = {rule: select_rows(table, Budget.parse("20%"), rule=rule).rows for rule in ("top", "quota")}
    assert distortion(mix, kept["top"]) > 0.3
    assert distortion(mix, kept["quota"]) < 0.005


def test_best_first_over_all_strata_and_only_candidates():
    table = make_table([5.0, None, 1.0, 4.0, 2.0, 9.0], ["a", "a", "a", "b", "b", "b"])
    selection = select_rows(table, Budget.parse("4"), rule="quota", columns=["source"])
    assert selection.rows.tolist() == [5, 0, 3, 2]
    assert selection.options == {"columns": ["source"]}
    assert selection.reasons == ("among the highest of its source, within its share of the budget",)


def test_any_column_and_many_of_them():
    table = make_table([float(row) for row in range(14)], ["a", "b"] * 7)
    rows = select_rows(table, Budget.parse("7"), rule="quota", columns=["n_answer_tokens"]).rows
    assert sorted(rows.tolist()) == list(range(7, 14))
    assert len(select_rows(table, Budget.parse("7"), rule="quota", columns=["n_answer_tokens", "source"])) == 7


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"columns": []}, "at least one column"),
        ({"temperature": 0}, "temperature=0: expected a number above 0"),
        ({"min_per_stratum": -1}, "min_per_stratum=-1"),
        ({"skip_top": 1}, "skip_top=1: expected a share"),
    ],
)
def test_options_that_make_no_sense(options, fault):
    with pytest.raises(SettingsError, match=fault):
        quota(**options)


def test_an_unknown_option():
    with pytest.raises(SettingsError, match="rule 'top' has no option 'columns'; it has none"):
        select_rows(make_table([1.0]), Budget.parse("1"), columns=["source"])
    with pytest.raises(SettingsError, match="rule 'quota' has no option 'share'; it has columns, temperature"):
        select_rows(make_table([1.0]), Budget.parse("1"), rule="quota", share=1)
