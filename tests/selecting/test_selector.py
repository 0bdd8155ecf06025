"""Only rows with a finite value are candidates; ties go to the lower row."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.scores import SampleScore, score_table
from delta_attnmask.selecting.selector import Background, select_rows
from delta_attnmask.selection import Budget
from tests.selecting import tables


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
    selection = select_rows(make_table(1.0, 3.0, 2.0, 3.0, 2.0), 3, rule="top")
    assert selection.indices.tolist() == [1, 3, 2]
    assert selection.indices.dtype == np.int64
    assert selection.report["threshold"] == 2.0
    assert selection.reason == "among the 3 highest of 5"


def test_what_has_no_finite_value_is_never_kept():
    table = make_table(math.nan, None, math.inf, -math.inf, "failed", 1.0, -1.0)
    selection = select_rows(table, "100%", rule="top")
    assert selection.indices.tolist() == [5, 6]
    assert selection.n_candidates == 2
    with pytest.raises(SettingsError, match="only 2 rows"):
        select_rows(table, 3)


def test_a_share_is_one_of_the_candidates():
    table = make_table(*["failed"] * 5, *map(float, range(10)))
    for keep in ("20%", 0.2, Budget.parse("20%"), 2, np.int64(2)):
        assert select_rows(table, keep, rule="top").indices.tolist() == [14, 13]


def test_any_numeric_column():
    assert select_rows(make_table(1.0, 2.0, 0.0), 1, by="n_tokens", rule="top").indices.tolist() == [2]
    with pytest.raises(SettingsError, match=r"by='id': expected one of the numeric columns row, .*n_tokens"):
        select_rows(make_table(1.0), 1, by="id")
    with pytest.raises(SettingsError, match="by='none'"):
        select_rows(make_table(1.0), 1, by="none")


def test_nothing_to_keep():
    with pytest.raises(SettingsError, match="nothing can be kept"):
        select_rows(make_table("failed", math.nan), "20%")
    with pytest.raises(SettingsError, match="expected a table, a data frame or Scores, got list"):
        select_rows([1.0], "20%")  # type: ignore[arg-type]


def test_a_table_without_anything_but_numbers():
    table = pa.table({"delta": [1.0, 5.0, None, 3.0], "score": [9.0, 0.0, 9.0, 8.0]})
    selection = select_rows(table, 2)
    assert (selection.column, selection.rule) == ("score", "top")
    assert selection.indices.tolist() == [0, 2]
    assert select_rows(table, 2, by="delta").indices.tolist() == [1, 3]
    assert select_rows(table.drop_columns("score"), 2).indices.tolist() == [1, 3]
    assert json.loads(json.dumps(selection.report))["quota_choice"]["chosen"] == "none"
    with pytest.raises(SettingsError, match="quota_by: expected at least one column"):
        select_rows(table, 2, rule="quota")
    with pytest.raises(SettingsError, match="quota by 'key': no such column"):
        select_rows(table, 2, drop_duplicates=True)


def test_a_data_frame_is_a_table():
    deltas, sources = tables.skewed_deltas(200)
    table = tables.make_table(deltas, sources)
    frame = table.to_pandas()
    frame["image"] = [object()] * len(frame)  # whatever else it may hold
    found, expected = select_rows(frame, 0.2, quota_by="source"), select_rows(table, 0.2, quota_by="source")
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.report == expected.report
    shuffled = frame.sample(frac=1, random_state=0)  # rows are known by their column `row`
    assert select_rows(shuffled, 0.2, quota_by="source").indices.tolist() == expected.indices.tolist()
    own = frame[["delta", "source"]].iloc[50:]
    assert select_rows(own, 1, rule="top").indices.tolist() == [int(np.argmax(deltas[50:]))]


def test_the_report_says_what_was_kept_and_why():
    table = tables.make_table([5.0, 4.0, 3.0, 2.0, None], ["a", "a", "b", "b", "c"])
    report = select_rows(table, 2, rule="top").report
    assert report["sources"] == {
        "a": {"kept": 2, "left": 0, "failed": 0},
        "b": {"kept": 0, "left": 2, "failed": 0},
        "c": {"kept": 0, "left": 0, "failed": 1},
    }
    assert report["sources_left_out"] == ["b"]
    assert (report["n_rows"], report["n_candidates"], report["n_kept"]) == (5, 4, 2)
    assert report["distortion"] == 0.5
    assert report["reasons"] == {"among the 2 highest of 4": 2}
    assert select_rows(table, 2, quota_by="source").report["sources_left_out"] == []


class InMemory:
    """Scores as the library holds them."""

    def __init__(self, table: pa.Table, background: Background) -> None:
        self.table, self.background = table, background


def test_scores_know_their_form_and_calibration():
    deltas, sources = tables.skewed_deltas(500)
    ratios = {"relative_delta": {"none": -9.0, "source": 0.3}}
    background = Background("relative_delta", None, ratios, {"relative_delta": ("blind",)})
    scores = InMemory(tables.make_table(deltas, sources), background)
    selection = select_rows(scores, "20%")
    assert (selection.column, selection.rule) == ("relative_delta", "top")
    assert selection.report["warnings"] == ["blind"]
    assert selection.report["quota_choice"]["is_calibrated"]
    other = select_rows(scores, "20%", by="low_loss")
    assert not other.report["quota_choice"]["is_calibrated"]
