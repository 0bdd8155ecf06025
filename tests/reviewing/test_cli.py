"""`delta-attnmask review` as it is called."""

import json
import socket
import sys
from contextlib import closing

import pytest

from delta_attnmask.reviewing.protocol import questions_of
from delta_attnmask.reviewing.store import ReviewStore
from tests.cli.test_commands import call


@pytest.fixture
def begun(scored, tmp_path):
    """The arguments that begin, or go on with, a small review."""
    arguments = [scored / "run", "--selection", scored / "kept.json", "--out", tmp_path / "review.sqlite"]
    assert call("review", *arguments, "--pairs", "20") == 0
    return arguments


def judge_everything(path):
    with closing(ReviewStore.open(path)) as store:
        for name in ("Ann", "Bad"):
            rater = store.enter(name)
            for pair in store.pairs():
                for question in questions_of(pair.kind):
                    answer = pair.target if name == "Ann" else "equal"
                    store.judge(rater, pair, question.name, answer, f"{name}{pair.token}{question.name}")


def test_begin_and_go_on(begun, capsys):
    assert call("review", *begun) == 0
    out = capsys.readouterr().out
    assert "20 pairs (27 rows by delta, rule top, against random), 2 of sets, and 4 checks of the raters" in out
    assert call("review", begun[0], "--out", begun[-1]) == 0
    assert call("review", *begun, "--pairs", "11") == 2
    assert "begun with other pairs" in capsys.readouterr().err


def test_results(begun, capsys):
    assert call("review", "--results", begun[-1]) == 0
    assert "Nobody has judged yet: 26 pairs are waiting." in capsys.readouterr().out
    judge_everything(begun[-1])
    assert call("review", "--results", begun[-1]) == 0
    out = capsys.readouterr().out
    assert "question: overall | pairs: 20 | won: 20 | tied: 0 | lost: 0 | win rate: 100 %" in out
    assert "The selected one in 100 % of 20 pairs with random rows (95 % interval 84 % to 100 %)" in out
    assert "Bad is not counted: told shuffled words from ordered ones in only 0 of 4 answers" in out


def test_results_as_json(begun, capsys):
    judge_everything(begun[-1])
    capsys.readouterr()
    assert call("review", "--results", begun[-1], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [rater["name"] for rater in found["raters"]] == ["Ann", "Bad"]
    assert set(found) == {"review", "n_drawn", "questions", "raters"}


def test_the_report_takes_no_review_of_another_run(begun, scored, tmp_path, capsys):
    arguments = [scored / "another", "--review", begun[-1], "-o", tmp_path / "report.html"]
    assert call("report", *arguments) == 2
    assert "the review is of another run" in capsys.readouterr().err


def test_label_studio_and_back(begun, capsys, tmp_path):
    assert call("review", *begun, "--export", "label-studio") == 0
    assert "review.sqlite.label-studio.xml" in capsys.readouterr().out
    tasks = json.loads((tmp_path / "review.sqlite.label-studio.json").read_text())
    choice = {"from_name": "overall", "type": "choices", "value": {"choices": ["equal"]}}
    done = [task | {"annotations": [{"id": n, "result": [choice]}]} for n, task in enumerate(tasks)]
    (tmp_path / "export.json").write_text(json.dumps(done))
    assert call("review", "--out", begun[-1], "--import", tmp_path / "export.json") == 0
    assert f"holds the {len(tasks)} answers" in capsys.readouterr().out


def test_errors_are_one_message(scored, tmp_path, capsys):
    new = tmp_path / "new.sqlite"
    for arguments, why in [
        ((), "expected RUN and --out FILE, or --results FILE"),
        ((scored / "run",), "expected RUN and --out"),
        ((tmp_path, "--out", new), "no run folder"),
        ((scored / "run", "--out", new), "expected the file that `select` wrote"),
        ((scored / "run", "--selection", scored / "none.json", "--out", new), "is missing"),
        ((scored / "run", "--selection", scored / "kept.json", "--out", new, "--pairs", "0"), "expected 1 "),
        ((scored / "run", "--selection", scored / "kept.json", "--out", new, "--against", "none"), "is missing"),
        (("--results", new), "holds no review"),
        (("--out", new, "--import", new), "holds no review"),
    ]:
        assert call("review", *arguments) == 2
        error = capsys.readouterr().err
        assert why in error
        assert "Traceback" not in error
    assert not new.exists()


def test_a_port_that_is_taken(begun, capsys):
    pytest.importorskip("starlette", reason="the extra `ui` isn't installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call("review", *begun, "--serve", "--port", port) == 2
    assert "choose another with --port" in capsys.readouterr().err


def test_without_the_extra_the_message_names_it(begun, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "delta_attnmask.reviewing.server", raising=False)
    assert call("review", *begun, "--serve") == 2
    assert "pip install 'delta-attnmask[ui]'" in capsys.readouterr().err
