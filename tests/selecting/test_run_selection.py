"""From a run folder to a selection: the default rule, what the note says of it, and that it can be read back."""

import json

import numpy as np
import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.selecting.note import read_note, write_note
from delta_attnmask.selecting.quotas import QUOTAS
from delta_attnmask.selecting.run_selection import candidates_of, read_background, select_from_run
from delta_attnmask.selecting.selector import Background
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
    report = {"form": form, "settings": {}, "warnings": ["blind"], "quota": {"options": options}}
    (run.path / "calibration.json").write_text(json.dumps(report))


def test_the_form_and_the_quota_without_a_calibration(run):
    selection = select_from_run(run, "20%")
    assert (selection.column, selection.rule) == ("relative_delta", "quota")
    assert selection.quota_by == ("source", "answer_type")
    assert selection.report["distortion"] < 0.01 < selection.report["distortion_by_chance"]
    assert selection.n_candidates == N_ROWS - 1
    assert 0 not in selection.indices


def test_the_calibrated_choice_and_its_warnings(run):
    calibrate(run, none=0.2)
    selection = select_from_run(run, "20%")
    assert selection.quota_by in [("source",), ("source", "answer_type")]
    assert selection.report["quota_choice"]["is_calibrated"]
    assert selection.report["warnings"] == ["blind"]
    calibrate(run, none=-9)
    plain = select_from_run(run, "20%")
    assert (plain.rule, plain.report["quota_choice"]["chosen"]) == ("top", "none")
    assert select_from_run(run, "20%", rule="quota").rule == "quota"
    assert select_from_run(run, "20%", min_per_stratum=1).rule == "quota"
    assert select_from_run(run, "20%", skip_top=0.1).rule == "band"


def test_the_default_quota_is_that_of_any_budget(run):
    for ratios in ({"none": 0.2}, {"none": -9}, {"source": 0.1}, {}):
        calibrate(run, **ratios)
        chosen = {select_from_run(run, keep).report["quota_choice"]["chosen"] for keep in ("2%", "10%", "20%", "60%")}
        assert len(chosen) == 1


def test_a_calibration_of_another_column_says_nothing(run):
    calibrate(run, form="relative_delta", none=-9)
    selection = select_from_run(run, "20%", by="low_loss")
    assert not selection.report["quota_choice"]["is_calibrated"]
    assert selection.report["warnings"] == []
    assert selection.column == "low_loss"


def test_named_rules(run):
    options = {"quota_by": "n_answer_tokens,source", "temperature": 2.0, "min_per_stratum": 2, "skip_top": "2%"}
    selection = select_from_run(run, "200", **options)
    assert selection.options == {
        "quota_by": ("n_answer_tokens", "source"),
        "temperature": 2.0,
        "min_per_stratum": 2,
        "skip_top": 0.02,
    }
    assert selection.report["n_strata"] == 28
    band = select_from_run(run, "200", rule="band")
    assert band.options == {"skip_top": 0.02}
    assert len(select_from_run(run, "200", rule="top")) == 200


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"rule": "top", "skip_top": 0.1}, "skip_top: the rule top doesn't take it; use the rule band or quota"),
        ({"rule": "top", "temperature": 2}, "temperature: the rule top doesn't take it; use the rule quota"),
        ({"rule": "band", "quota_by": "source"}, "quota_by: the rule band doesn't take it; use the rule diverse or"),
        ({"rule": "diverse", "min_per_stratum": 1}, "min_per_stratum: the rule diverse doesn't take it"),
        ({"rule": "quota", "pool": 3}, "pool: the rule quota doesn't take it; use the rule diverse or trusted"),
        ({"pool": 3}, "pool: the rule quota doesn't take it; use the rule diverse or trusted"),
        ({"rule": "quota", "clusters": 3}, "--quota-by cluster"),
        ({"rule": "diverse", "skip_top": 0.1}, "skip_top: the rule diverse doesn't take it"),
        ({"rule": "diverse"}, "no embeddings"),
        ({"quota_by": "cluster"}, "no embeddings"),
        ({"quota_by": "colour"}, "quota by 'colour': no such column"),
    ],
)
def test_options_are_never_dropped(run, options, fault):
    with pytest.raises(SettingsError, match=fault):
        select_from_run(run, "20%", **options)


def test_duplicates_are_left_out_but_the_share_is_of_all(run):
    selection = select_from_run(run, "20%", drop_duplicates=True)
    assert (selection.report["n_duplicates"], selection.n_candidates, len(selection)) == (398, 601, 200)
    assert np.count_nonzero(selection.indices < 400) <= 1
    with pytest.raises(SettingsError, match="only 601 are left without duplicates"):
        select_from_run(run, "80%", drop_duplicates=True)
    candidates = candidates_of(selection, run, run.read_scores())
    assert len(candidates) == 601
    assert set(selection.indices) <= set(candidates.indices)
    in_pairs = select_from_run(run, "20%", drop_duplicates=np.arange(N_ROWS) // 2 * 2)
    assert in_pairs.report["n_duplicates"] == N_ROWS // 2 - 1  # the first row has failed
    assert len(set(in_pairs.indices // 2)) == len(in_pairs)


def test_a_note_read_back(run, tmp_path):
    selection = select_from_run(run, "20%")
    path = tmp_path / "kept.json.selection.json"
    path.write_text(write_note(selection, run, "input"))
    for name in (path, tmp_path / "kept.json"):
        found = read_note(name, run)
        assert found.indices.tolist() == selection.indices.tolist()
        assert (found.rule, found.column, str(found.budget)) == ("quota", "relative_delta", "20%")
        assert found.options == selection.options | {"quota_by": ["source", "answer_type"]}
        assert found.quota_by == selection.quota_by
        assert found.reason == selection.reason
        assert found.duplicates.tolist() == selection.duplicates.tolist() == []
    other = write_run(tmp_path / "other", make_scores([1.0]))
    with pytest.raises(ArtifactError, match="made of another run"):
        read_note(path, other)
    with pytest.raises(ArtifactError, match="is missing"):
        read_note(tmp_path / "nothing", run)
    path.write_text("[]")
    with pytest.raises(ArtifactError, match="is no note of a selection"):
        read_note(path, run)


def test_what_is_read_of_a_calibration(run):
    assert read_background(run).planted_ratio == {}
    path = run.path / "calibration.json"
    path.write_text('{"form": "delta", "settings": {}, "warnings": ["blind"], "seconds": 3}')
    found = read_background(run)
    assert (found.form, found.planted_ratio["delta"], found.warnings) == ("relative_delta", {}, {"delta": ("blind",)})
    assert found.calibration_s == 3.0


def test_ratios_hold_for_what_was_calibrated_alone():
    options = {"source": {"planted_ratio": 0.25}, "another": {"planted_ratio": 1}}
    settings = {"block": -2, "fraction": 0.2}
    report = {"form": "delta", "warnings": [], "settings": settings, "quota": {"options": options}}
    same = Background.of({"block": -2, "fraction": 0.2, "dtype": "float32"}, report, None)
    assert same.planted_ratio == {"delta": {"source": 0.25}}
    assert Background.of({"block": -4}, report, None).planted_ratio == {}
    assert Background.of({"block": -4, "form": "loss"}, None, None) == Background("loss")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": "delta"}', '{"form": 1, "warnings": 2}'])
def test_what_is_no_calibration(run, text):
    (run.path / "calibration.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"is no calibration.*remove it or calibrate again"):
        read_background(run)
