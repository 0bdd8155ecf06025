"""From a run folder to a selection: the default rule, what the note says of it, and that it can be read back."""

import json

import numpy as np
import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.selecting.mix import QUOTAS
from delta_attnmask.selecting.note import read_note, write_note
from delta_attnmask.selecting.plan import Options, plan_selection
from tests.selecting.tables import make_scores, skewed_deltas, write_run

N_ROWS = 1000


@pytest.fixture
def run(tmp_path):
    deltas, sources = skewed_deltas(N_ROWS)
    types = [("word", "number")[row % 2] for row in range(N_ROWS)]
    questions = [f"q{row % 3}" for row in range(N_ROWS)]
    scores = make_scores([None, *deltas[1:]], sources, types, questions, ["copy"] * 400 + [""] * 600)
    return write_run(tmp_path / "run", scores, form="relative_delta")


def calibrate(run, form="relative_delta", **ratios):
    options = {quota: {"planted_ratio": ratios.get(quota, 0.3)} for quota in QUOTAS}
    report = {"form": form, "warnings": ["blind"], "quota": {"options": options}}
    (run.path / "calibration.json").write_text(json.dumps(report))


def test_the_form_and_the_quota_without_a_calibration(run):
    selection = plan_selection(run, "20%").selection
    assert (selection.column, selection.rule) == ("relative_delta", "quota")
    assert selection.options["columns"] == ("source", "answer_type")
    assert selection.details["distortion"] < 0.01 < selection.details["distortion_by_chance"]
    assert selection.n_candidates == N_ROWS - 1
    assert 0 not in selection.rows


def test_the_calibrated_choice_and_its_warnings(run):
    calibrate(run, none=0.2)
    selection = plan_selection(run, "20%").selection
    assert selection.options["columns"] in [("source",), ("source", "answer_type")]
    assert selection.details["quota_choice"]["is_calibrated"]
    assert selection.details["warnings"] == ["blind"]
    calibrate(run, none=-9)
    plain = plan_selection(run, "20%").selection
    assert (plain.rule, plain.details["quota_choice"]["chosen"]) == ("top", "none")
    assert plan_selection(run, "20%", options=Options("quota")).selection.rule == "quota"
    assert plan_selection(run, "20%", options=Options(min_per_stratum=1)).selection.rule == "quota"
    assert plan_selection(run, "20%", options=Options(skip_top=0.1)).selection.rule == "band"


def test_a_calibration_of_another_column_says_nothing(run):
    calibrate(run, form="relative_delta", none=-9)
    selection = plan_selection(run, "20%", by="low_loss").selection
    assert not selection.details["quota_choice"]["is_calibrated"]
    assert selection.column == "low_loss"


def test_named_rules(run):
    options = Options(columns=("n_answer_tokens", "source"), temperature=2.0, min_per_stratum=2, skip_top=0.02)
    selection = plan_selection(run, "200", options=options).selection
    assert selection.options == {
        "columns": ("n_answer_tokens", "source"),
        "temperature": 2.0,
        "min_per_stratum": 2,
        "skip_top": 0.02,
    }
    assert selection.details["n_strata"] == 28
    band = plan_selection(run, "200", options=Options("band")).selection
    assert band.options == {"skip_top": 0.02}
    assert len(plan_selection(run, "200", options=Options("top")).selection) == 200


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (Options("top", skip_top=0.1), "use --rule band or quota"),
        (Options("top", temperature=2), "rule='top' can't follow --quota-by, --temperature"),
        (Options("band", columns=("source",)), "rule='band' can't follow --quota-by"),
        (Options("diverse", min_per_stratum=1), "rule='diverse' can't follow"),
        (Options("quota", pool=3), "use --rule diverse with --pool"),
        (Options("quota", n_clusters=3), "add --quota-by cluster"),
        (Options("diverse", skip_top=0.1), "rule='diverse' leaves nothing out"),
        (Options("diverse"), "no embeddings"),
        (Options(columns=("cluster",)), "no embeddings"),
    ],
)
def test_options_are_never_dropped(run, options, fault):
    with pytest.raises(SettingsError, match=fault):
        plan_selection(run, "20%", options=options)


def test_duplicates_are_left_out_but_the_share_is_of_all(run):
    selection = plan_selection(run, "20%", options=Options(drop_duplicates=1.0)).selection
    assert (selection.details["n_duplicates"], selection.n_candidates, len(selection)) == (398, 601, 200)
    assert np.count_nonzero(selection.rows < 400) <= 1
    with pytest.raises(SettingsError, match="only 601 are left without duplicates"):
        plan_selection(run, "80%", options=Options(drop_duplicates=1.0))


def test_a_note_read_back(run, tmp_path):
    plan = plan_selection(run, "20%")
    path = tmp_path / "kept.json.selection.json"
    path.write_text(write_note(plan.selection, run, plan.scores, "input"))
    for name in (path, tmp_path / "kept.json"):
        found = read_note(name, run)
        assert found.rows.tolist() == plan.selection.rows.tolist()
        assert (found.rule, found.column, str(found.budget)) == ("quota", "relative_delta", "20%")
        assert found.options == plan.selection.options | {"columns": ["source", "answer_type"]}
    other = write_run(tmp_path / "other", make_scores([1.0]))
    with pytest.raises(ArtifactError, match="made of another run"):
        read_note(path, other)
    with pytest.raises(ArtifactError, match="is missing"):
        read_note(tmp_path / "nothing", run)
    path.write_text("[]")
    with pytest.raises(ArtifactError, match="is no note of a selection"):
        read_note(path, run)
