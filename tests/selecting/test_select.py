"""Only rows with a finite value are candidates; ties go to the lower row."""

import math

import pyarrow as pa
import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.scores import SampleScore, score_table
from delta_attnmask.selecting.select import RULES, select_rows
from delta_attnmask.selection import Budget


def make_table(*deltas: float | str | None) -> pa.Table:
    """One row for each delta; "failed" is a failed row."""
    return score_table(
        [
            SampleScore(row=row, id="", key="", source="s", status="failed", reason="why", delta=9.0)
            if delta == "failed"
            else SampleScore(row=row, id="", key="", source="s", status="ok", delta=delta, n_tokens=row)
            for row, delta in enumerate(deltas)
        ]
    )


def test_best_first_ties_to_the_lower_row():
    selection = select_rows(make_table(1.0, 3.0, 2.0, 3.0, 2.0), Budget.parse("3"))
    assert selection.rows.tolist() == [1, 3, 2]
    assert selection.details == {"threshold": 2.0}
    assert [selection.reasons[idx] for idx in selection.reason_idx] == ["among the 3 highest of 5"] * 3


def test_what_has_no_finite_value_is_never_kept():
    table = make_table(math.nan, None, math.inf, -math.inf, "failed", 1.0, -1.0)
    selection = select_rows(table, Budget.parse("100%"))
    assert selection.rows.tolist() == [5, 6]
    assert selection.n_candidates == 2
    with pytest.raises(SettingsError, match="only 2 rows"):
        select_rows(table, Budget.parse("3"))


def test_a_share_is_one_of_the_candidates():
    table = make_table(*["failed"] * 5, *map(float, range(10)))
    assert select_rows(table, Budget.parse("20%")).rows.tolist() == [14, 13]


def test_any_numeric_column():
    assert select_rows(make_table(1.0, 2.0, 0.0), Budget.parse("1"), column="n_tokens").rows.tolist() == [2]
    with pytest.raises(SettingsError, match=r"by='id': expected one of the numeric columns row, .*n_tokens"):
        select_rows(make_table(1.0), Budget.parse("1"), column="id")
    with pytest.raises(SettingsError, match="by='none'"):
        select_rows(make_table(1.0), Budget.parse("1"), column="none")


def test_nothing_to_keep():
    with pytest.raises(SettingsError, match="nothing can be kept"):
        select_rows(make_table("failed", math.nan), Budget.parse("20%"))


def test_rules_are_named_like_their_files():
    for name, rule in RULES.items():
        assert rule.__module__ == f"delta_attnmask.selecting.{name}"
    with pytest.raises(SettingsError, match="rule='x': expected one of top"):
        select_rows(make_table(1.0), Budget.parse("1"), rule="x")
