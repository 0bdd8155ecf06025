"""`delta-attnmask review` as it is called."""

import json

import pytest

from delta_attnmask.reviewing.protocol import Protocol
from tests.cli.test_commands import call
from tests.reviewing.conftest import answer_all, save


@pytest.fixture
def begun(scored, folder):
    """The arguments that begin a small review; the last one is its folder."""
    arguments = [scored / "run", "--selection", scored / "kept.json", "--pairs", "20", "--out", folder]
    assert call("review", *arguments) == 0
    return arguments


@pytest.fixture
def files(begun, folder, tmp_path):
    """The answers of a careful and of a careless judge."""
    protocol = Protocol.read(folder)
    careless = answer_all(protocol, "Bad", lambda pair: "equal")
    return [save(tmp_path / "answers-Ann.json", answer_all(protocol)), save(tmp_path / "answers-Bad.json", careless)]


def test_begin_and_again(begun, folder, capsys):
    before = (folder / "review.json").read_text()
    assert call("review", *begun) == 0
    out = capsys.readouterr().out
    assert "20 pairs (27 rows by delta, rule top (" in out
    assert "), against random) and 2 attention checks" in out
    assert f"Wrote {folder / 'review.html'}" in out
    assert (folder / "review.json").read_text() == before
    assert call("review", *begun, "--seed", "11") == 2
    assert "holds a review with other seed" in capsys.readouterr().err


def test_results(begun, folder, files, capsys):
    assert call("review", folder) == 0
    assert "No one has judged yet: 20 pairs are waiting." in capsys.readouterr().out
    assert call("review", folder, "--collect", *files) == 0
    out = capsys.readouterr().out
    assert "question: overall | pairs: 20 | won: 20 | tied: 0 | lost: 0 | win rate: 100 %" in out
    assert "The selected one in 100 % of 20 pairs with random rows (95 % interval 84 % to 100 %)" in out
    assert "counted: no: preferred readable to reversed text in only 0 of 4 answers" in out
    assert call("review", folder) == 0
    assert capsys.readouterr().out == out
    assert call("review", folder, "--with-careless") == 0
    assert "in 75 % of 20 pairs" in capsys.readouterr().out


def test_results_as_json(folder, files, tmp_path):
    assert call("review", folder, "--collect", *files, "--json", tmp_path / "results.json") == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert [rater["name"] for rater in found["raters"]] == ["Ann", "Bad"]
    assert set(found) - {"generator"} == {"manifest_sha256", "selection", "against", "n_drawn", "questions", "raters"}


def test_the_report_takes_no_review_of_another_run(begun, scored, folder, tmp_path, capsys):
    arguments = [scored / "another", "--review", folder, "-o", tmp_path / "report.html"]
    assert call("report", *arguments) == 2
    assert "the review is of another run" in capsys.readouterr().err


def test_label_studio_and_back(begun, folder, capsys, tmp_path):
    assert call("review", *begun, "--export", "label-studio") == 0
    assert "label-studio.xml" in capsys.readouterr().out
    tasks = json.loads((folder / "label-studio.json").read_text())
    choice = {"from_name": "overall", "type": "choices", "value": {"choices": ["equal"]}}
    done = [task | {"annotations": [{"id": n, "result": [choice]}]} for n, task in enumerate(tasks)]
    assert call("review", folder, "--collect", save(tmp_path / "export.json", done)) == 0
    assert "question: overall | pairs: 20 | won: 0 | tied: 20" in capsys.readouterr().out


def test_errors_are_one_message(scored, tmp_path, capsys):
    new, run, kept = tmp_path / "new", scored / "run", scored / "kept.json"
    for arguments, why in [
        ((run,), "holds no review"),
        ((run, "--selection", kept), "--out is missing"),
        ((run, "--out", new), "expected RUN --selection FILE --out DIR"),
        ((run, "--selection", kept, "--out", new, "--collect", kept), "to begin a review"),
        ((tmp_path, "--selection", kept, "--out", new), "holds no run"),
        ((run, "--selection", scored / "none.json", "--out", new), "is missing"),
        ((run, "--selection", kept, "--out", new, "--pairs", "0"), "expected 1 "),
        ((run, "--selection", kept, "--out", new, "--against", "none"), "is missing"),
        ((new, "--collect", kept), "holds no review"),
    ]:
        assert call("review", *arguments) == 2
        error = capsys.readouterr().err
        assert why in error
        assert "Traceback" not in error
    assert not new.exists()


def test_a_file_in_the_way(scored, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert call("review", scored / "run", "--selection", scored / "kept.json", "--out", tmp_path / "file") == 2
    assert "can't be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_hostile_answers_are_one_message(begun, folder, tmp_path, capsys):
    bad = answer_all(Protocol.read(folder), "\x1b[2J")
    assert call("review", folder, "--collect", save(tmp_path / "bad.json", bad)) == 2
    error = capsys.readouterr().err
    assert "a judge's name has" in error
    assert "\x1b" not in error
