"""Which quota is chosen where none is named, with and without a calibration."""

import json

import numpy as np
import pytest

from delta_attnmask.errors import ArtifactError
from delta_attnmask.selecting.auto import Calibrated, choose_columns, read_calibrated
from delta_attnmask.selecting.mix import QUOTAS
from delta_attnmask.selecting.rules import Candidates
from tests.selecting.tables import make_table

ALIKE = dict.fromkeys(QUOTAS, 0.3)


def make_candidates(*, questions_repeat: bool = True, n_rows: int = 6000) -> Candidates:
    """Rows whose value grows with the source; the answer types are the same in all of them."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 4, n_rows)
    questions = [str(row % 10 if questions_repeat else row) for row in range(n_rows)]
    types = [("word", "number")[row % 2] for row in range(n_rows)]
    values = rng.normal(size=n_rows) + sources
    return Candidates(values, make_table(values.tolist(), [f"s{s}" for s in sources], types, questions))


def test_without_a_calibration_the_finest_that_is_always_there():
    choice = choose_columns(make_candidates(), 0.2, {})
    assert choice.columns == ("source", "answer_type")
    assert choice.details["is_calibrated"] is False
    assert "share of planted copies" in choice.details["rule"]


def test_a_skewed_mix_costs_more_than_a_few_defects():
    choice = choose_columns(make_candidates(), 0.2, ALIKE | {"none": 0.2})
    assert choice.columns == ("source",)
    assert choice.details["options"]["none"]["excess_distortion"] > 0.2
    assert choice.details["options"]["source"] == {"planted_ratio": 0.3, "excess_distortion": 0.0}


def test_no_quota_where_it_costs_much_unless_one_is_needed():
    costly = dict.fromkeys(QUOTAS, 0.9) | {"none": 0.1}
    assert choose_columns(make_candidates(), 0.2, costly).columns == ()
    assert choose_columns(make_candidates(), 0.2, costly, needs_quota=True).columns == ("source",)


@pytest.mark.parametrize("questions_repeat", [True, False])
def test_questions_are_on_offer_only_where_they_repeat(questions_repeat):
    ratios = ALIKE | {"question,answer_type": -1.0}
    choice = choose_columns(make_candidates(questions_repeat=questions_repeat), 0.2, ratios)
    assert ("question" in choice.columns) is questions_repeat


def test_many_rows_are_judged_by_evenly_spaced_ones(monkeypatch):
    candidates = make_candidates(n_rows=10_000)
    whole = choose_columns(candidates, 0.2, ALIKE).details["options"]
    monkeypatch.setattr("delta_attnmask.selecting.auto._MAX_SAMPLE", 3000)
    spaced = choose_columns(candidates, 0.2, ALIKE).details["options"]
    for quota, option in whole.items():
        assert spaced[quota]["excess_distortion"] == pytest.approx(option["excess_distortion"], abs=0.05)


def test_what_is_read_of_a_calibration(tmp_path):
    assert read_calibrated(tmp_path) is None
    path = tmp_path / "calibration.json"
    path.write_text('{"form": "delta", "warnings": ["blind"], "seconds": 3}')
    assert read_calibrated(tmp_path) == Calibrated("delta", {}, ("blind",), 3.0)
    options = {"source": {"planted_ratio": 0.25}, "another": {"planted_ratio": 1}}
    path.write_text(json.dumps({"form": "delta", "warnings": [], "quota": {"options": options}}))
    assert read_calibrated(tmp_path) == Calibrated("delta", {"source": 0.25})


def test_ratios_hold_for_what_was_calibrated_alone():
    found = Calibrated("delta", {"source": 0.25}, settings={"block": -2})
    assert found.ratios_for("delta", {"block": -2, "dtype": "float32"}) == {"source": 0.25}
    assert found.ratios_for("loss", {"block": -2}) == found.ratios_for("delta", {"block": -4}) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": "delta"}', '{"form": 1, "warnings": 2}'])
def test_what_is_no_calibration(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"is no calibration.*remove it or calibrate again"):
        read_calibrated(tmp_path)
