"""`evaluate` and `compare` from the command line, on a few embedded rows."""

import json
from pathlib import Path

import pytest

from delta_attnmask.cli import main


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_evaluate_then_compare(embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(embedded / "test.json"), "--images", str(embedded / "images"), "--limit", "3"]
    model = ["--model", str(embedded / "model"), "--device", "cpu"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert run_command("evaluate", *model, *data, "--out", one) == 0
    printed = capsys.readouterr().out
    assert "mean over sources" in printed
    assert "gain by the image" in printed
    assert run_command("evaluate", *model, *data, "--out", two, "--no-image-swap") == 0
    report = json.loads((tmp_path / "two" / "evaluation.json").read_text())
    assert report["pooled"]["swapped"] is None
    assert run_command("compare", one, two) == 0
    assert "+0.0% (+0.0 to +0.0)" in capsys.readouterr().out
    assert run_command("evaluate", *model, *data, "--out", two) == 2
    assert "settings.image_swap: False there, True now" in capsys.readouterr().err
    assert run_command("compare", one) == 2
    assert "at least two" in capsys.readouterr().err


def test_a_set_without_a_good_row_is_evaluated_to_its_reasons(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps([{"conversations": []}, {"conversations": 5}]))
    model = ["--model", str(embedded / "model"), "--device", "cpu"]
    assert run_command("evaluate", *model, "--data", str(tmp_path / "bad.json"), "--out", str(tmp_path / "eval")) == 2
    told = capsys.readouterr()
    assert "Failed rows, by kind" in told.out
    assert "aren't tried again" in told.out
    assert "no row could be answered" in told.err
    report = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert report["n_failed_rows"] == 2
    assert report["pooled"] == {"n_rows": 0, "n_answers": 0}
