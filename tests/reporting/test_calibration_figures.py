"""What the report reads of a calibration, of this schema and of the first."""

import json

from delta_attnmask.reporting.calibration_figures import InSource, read_findings, tables_of
from tests.reporting.runs import write_calibration


def test_sources_have_an_interval(tmp_path):
    write_calibration(tmp_path)
    findings = read_findings(tmp_path)
    _, columns, rows = tables_of(findings)[-1]
    assert columns[:4] == ("source", "all seen", "low", "high")
    assert rows == [("s1", 0.8125, 0.7, 0.9, 0.8, None)]


def test_figures_cover_only_the_score_that_was_chosen(tmp_path):
    write_calibration(tmp_path)
    findings = read_findings(tmp_path)
    settings = {"queries": "all", "tokens": "all", "fraction": 0.2, "block": -2, "dtype": "float32"}
    assert findings.covers("delta", settings)
    assert not findings.covers("n_tokens", settings)
    assert not findings.covers("delta", settings | {"fraction": 0.6})
    assert findings.seen == ("answer_swapped",)


def test_the_first_schema_had_none(tmp_path):
    write_calibration(tmp_path)
    path = tmp_path / "calibration.json"
    report = json.loads(path.read_text()) | {"schema": 1, "sources": {"s1": {"answer_swapped": 0.8}}}
    path.write_text(json.dumps(report))
    aurocs = {"answer_swapped": 0.8, "image_swapped": None}
    assert read_findings(tmp_path).sources == {"s1": InSource(None, None, None, aurocs)}
