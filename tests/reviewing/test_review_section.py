"""The report says what people judged, and only of its own run."""

import pytest

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.run_report import Request, make_report
from delta_attnmask.reviewing.answers import collect
from delta_attnmask.reviewing.review_results import read_results, review_section
from delta_attnmask.runs import RunFolder
from tests.reviewing.conftest import answer_all, save


def test_the_report_shows_the_results(run, protocol, folder, tmp_path):
    collect(folder, [save(tmp_path / "answers.json", answer_all(protocol, "<i>Ann</i>"))])
    results = read_results(folder)
    section = review_section(results, run)
    _, _, rows = section.tables[0]
    assert [row[5] for row in rows] == ["100 %"] * 4
    html = make_report(Request(run=run, selection=None, sections=(section,)))
    assert "What people say" in html
    assert "One person compared selected samples with random rows" in html
    assert "Which answer is more correct? The selected one in 100 % of 20 pairs" in html
    assert "&lt;i&gt;Ann" in html
    assert "<i>Ann" not in html


def test_before_anybody_has_judged(run, protocol, folder):
    section = review_section(read_results(folder), run)
    assert "No one has judged yet." in section.lead
    assert section.tables == ()


def test_a_review_of_another_run(scored, protocol, folder):
    with pytest.raises(ArtifactError, match="of another run"):
        review_section(read_results(folder), RunFolder.open(scored / "another"))
