"""The demo and the calibrating commands, end to end on a few embedded rows."""

import json
import re
from pathlib import Path

import pytest

from delta_attnmask.calibration import Calibration
from delta_attnmask.cli import main
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import MaskSettings


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_demo_on_few_rows_compares_with_the_known_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("demo", "--out", str(tmp_path), "--limit", "16") == 0
    printed = capsys.readouterr()
    assert "too few to calibrate on" in printed.err
    assert re.findall(r"way: ([\w' ]+\w)", printed.out) == [
        *("selected", "low loss", "best Δ alone", "the paper's plain Δ", "random", "oracle"),
    ]
    assert "verdict: too few rows to tell" in printed.out
    assert (tmp_path / "report.html").exists()
    run = RunFolder.open(tmp_path / "run")
    assert run.is_complete
    assert run.manifest.settings["form"] == "relative_delta"


def test_demo_export_writes_what_the_other_commands_take(tmp_path: Path) -> None:
    assert run_command("demo", "--export", str(tmp_path)) == 0
    for name in ("model/config.json", "pool.json", "test.json", "defects.json", "LICENSES.md"):
        assert (tmp_path / name).exists()
    data = ["--data", str(tmp_path / "pool.json"), "--images", str(tmp_path / "images"), "--limit", "100"]
    assert run_command("check", *data) == 0


def test_calibrate_score_and_select_agree_on_settings_and_form(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = (MaskSettings.paper(), MaskSettings(queries="answer", block=-2))  # the whole grid takes a minute
    monkeypatch.setattr("delta_attnmask.calibrating.calibrator.calibration_grid", lambda n_blocks: grid)
    given = ["--model", str(embedded / "model"), "--data", str(embedded / "pool.json")]
    given += ["--images", str(embedded / "images")]
    assert run_command("calibrate", *given, "--rows", "66", "--also", "el2n", "--out", str(tmp_path / "cal")) == 0
    found = Calibration.load(tmp_path / "cal")
    assert found.report["n_originals"] == 66
    printed = capsys.readouterr().out
    verdict = f"verdict: {found.verdict_sentence}"
    assert str(found.candidate) in printed
    assert printed.splitlines()[-1] == verdict

    out = ["--out", str(tmp_path / "run")]
    assert run_command("score", *given, *out, "--limit", "24", "--settings", str(tmp_path / "cal")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == verdict
    settings = RunFolder.open(tmp_path / "run").manifest.settings
    assert {name: settings[name] for name in found.settings.to_dict()} == found.settings.to_dict()
    assert settings["form"] == found.candidate.form

    assert Calibration.load(tmp_path / "run").report == found.report  # for `select`

    kept = tmp_path / "kept.json"
    assert run_command("select", str(tmp_path / "run"), "--keep", "25%", "--out", str(kept)) == 0
    assert len(json.loads(kept.read_text())) == 6
    assert capsys.readouterr().out.splitlines()[-1] == verdict
    note = json.loads((tmp_path / "kept.json.selection.json").read_text())
    assert (note["verdict"], note["verdict_sentence"]) == (found.verdict, found.verdict_sentence)

    hopeless = dict(found.report) | {"chosen": found.report["chosen"] | {"copies_kept": 1.0}}
    Calibration(hopeless).save(tmp_path / "run")
    again = ["select", str(tmp_path / "run"), "--keep", "25%", "--out", str(kept)]
    assert [run_command(*again), run_command(*again, "--strict")] == [0, 3]
    assert "verdict: no better than random rows" in capsys.readouterr().out
    assert run_command(*again, "--by", "low_loss", "--strict") == 0  # which wasn't calibrated
    assert "verdict" not in capsys.readouterr().out


def test_settings_that_are_neither_preset_nor_calibration_are_refused(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", str(embedded / "model"), "--data", str(embedded / "pool.json")]
    given += ["--images", str(embedded / "images")]
    assert run_command("score", *given, "--out", str(tmp_path / "run"), "--settings", "papr") == 2
    assert "expected auto, paper, relative" in capsys.readouterr().err
