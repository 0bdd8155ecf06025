"""`audit` and `estimate` as they are called."""

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import call
from tests.selecting.tables import make_scores, skewed_deltas, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    deltas, sources = skewed_deltas(300)
    write_run(tmp_path / "run", make_scores(deltas, sources), form="relative_delta")
    return tmp_path / "run"


def test_audit(run, tmp_path, capsys):
    assert call("audit", run, "--json", tmp_path / "audit.json", "--train-rate", "5") == 0
    printed = capsys.readouterr().out
    assert "60 of 300 rows kept by relative_delta, rule quota by source and answer_type" in printed
    assert "source: s3" in printed
    assert "random rows (expected) | overlap: 20.0%" in printed
    assert "Expected defects: not known" in printed
    report = json.loads((tmp_path / "audit.json").read_text())
    assert report["mix"]["source"]["distortion"] < 0.02
    assert report["costs"]["train_rate"] == 5
    assert call("audit", run, "--by", "low_loss", "--keep", "10%", "--against", run) == 0
    assert "30 of 300 rows kept by low_loss" in capsys.readouterr().out


def test_audit_of_what_cannot_be(run, tmp_path, capsys):
    assert call("audit", run, "--selection", tmp_path / "none.json") == 2
    assert "none.json.selection.json is missing" in capsys.readouterr().err
    assert call("audit", run, "--train-rate", "0") == 2
    assert call("audit", tmp_path) == 2
    capsys.readouterr()


def test_estimate(embedded, tmp_path, capsys):
    arguments = ("--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images")
    report = tmp_path / "estimate.json"
    assert call("estimate", *arguments, "--rows", "6", "--limit", "40", "--json", report) == 0
    printed = capsys.readouterr().out
    assert "rows: 40" in printed
    assert "calibration before it: " in printed
    found = json.loads(report.read_text())
    assert (found["n_tried"], found["n_failed"], found["n_rows"]) == (6, 0, 40)
    assert found["scoring_s"] == pytest.approx(40 / found["rows_per_s"], rel=0.05, abs=0.06)  # rounded to a tenth
    assert found["calibration_s"] > 0
    assert found["peak_bytes"] > 10**8
    assert call("estimate", *arguments, "--train-rate", "-1") == 2
    capsys.readouterr()
