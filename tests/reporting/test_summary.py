"""What the report reads of a calibration."""

import numpy as np
import pytest

from delta_attnmask.reporting.summary import find_findings
from delta_attnmask.selecting.run_selection import select_from_run
from tests.reporting.runs import write_calibration, write_data, write_run


@pytest.fixture
def run(tmp_path):
    made = write_run(tmp_path / "run", write_data(tmp_path / "data", 12), np.arange(12.0).tolist())
    write_calibration(made.path)
    return made


def test_a_run_without_a_calibration_has_none(run):
    (run.path / "calibration.json").unlink()
    assert find_findings(run, None, None) is None


def test_figures_cover_only_the_score_that_was_chosen(run):
    found = find_findings(run, select_from_run(run, "20%"), None)
    assert found.is_covered
    assert found.seen == ("answer_swapped",)
    assert found.extremes == ("answer_swapped", "answer_swapped")
    assert not find_findings(run, select_from_run(run, "20%", by="n_tokens"), None).is_covered
    run.manifest.settings["fraction"] = 0.6
    assert not find_findings(run, select_from_run(run, "20%"), None).is_covered


def test_everything_that_was_tried_is_listed_best_first(run):
    best, plain, control = find_findings(run, None, None).tried
    assert best == ["delta (queries all, tokens all, fraction 0.2, block -2)", 0.3, 0.9, None]
    assert plain[:2] == ["perplexity", 1.2]
    assert control[0].startswith("delta (random tokens, ")
