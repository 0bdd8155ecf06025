"""Rows can be ranked by what is stored and by what is derived from it."""

import numpy as np
import pytest

from delta_attnmask.derived import derived_names
from delta_attnmask.errors import SettingsError
from delta_attnmask.scores import SCORE_SCHEMA, score_schema
from delta_attnmask.selecting.candidates import rankable_columns, ranking_values, stored_columns
from delta_attnmask.selecting.selector import select_rows
from tests.selecting.tables import make_table


def test_stored_and_derived():
    table = make_table([0.5, None, 2.0])
    assert ranking_values(table, "n_tokens").tolist() == [10, 10, 10]
    np.testing.assert_array_equal(ranking_values(table, "delta"), [0.5, np.nan, 2.0])
    np.testing.assert_allclose(ranking_values(table, "relative_delta"), [0.5 / 1.05, np.nan, 2 / 1.05])
    assert select_rows(table, "50%", by="relative_delta").indices.tolist() == [2]


def test_what_has_to_be_read():
    assert stored_columns("relative_delta", SCORE_SCHEMA) == {"delta", "loss"}
    assert stored_columns("loss", SCORE_SCHEMA) == {"loss"}
    assert {"relative_delta", "low_loss"} <= set(rankable_columns(SCORE_SCHEMA))
    assert "ifd" not in rankable_columns(SCORE_SCHEMA)
    assert set(derived_names()) <= set(
        rankable_columns(score_schema(["loss_alone", "loss_without_image", "loss_without_question"]))
    )


def test_a_stored_column_goes_before_a_derived_one():
    table = make_table([1.0, 2.0]).append_column("low_loss", [[5.0, 4.0]])
    assert ranking_values(table, "low_loss").tolist() == [5, 4]


def test_what_is_missing_is_named():
    with pytest.raises(SettingsError, match="by='ifd': needs loss_alone; score with --also loss_alone"):
        ranking_values(make_table([1.0]), "ifd")
    with pytest.raises(SettingsError, match=r"by='nothing': expected one of .*relative_delta"):
        ranking_values(make_table([1.0]), "nothing")
