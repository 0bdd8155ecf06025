"""`delta-attnmask train` as it is called."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from delta_attnmask import MaskSettings, SettingsError, cli
from delta_attnmask.cli.options import MaskOptions
from tests.selecting.tables import make_scores, write_run


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([*map(str, arguments)])
    return int(caught.value.code or 0)


def test_it_trains_and_says_so(embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", embedded / "model", "--data", embedded / "pool.json", "--out", tmp_path / "out"]
    options += ["--limit", 4, "--batch-size", 2, "--max-steps", 1, "--log-steps", 1, "--device", "cpu"]
    options += ["--augment", "masked", "--block", "-3", "--gradient-checkpointing"]
    options += ["--images", embedded / "images"]
    assert call("train", *options) == 0
    printed = capsys.readouterr()
    assert "4 rows, 1 steps" in printed.out
    assert "step 1 of 1: loss " in printed.err
    assert call("train", *options) == 0
    assert "already trained" in capsys.readouterr().out
    assert call("train", *options, "--seed", 1) == 2
    assert "settings.seed: 0 there, 1 now" in capsys.readouterr().err


def test_without_the_images_nothing_is_trained_until_it_is_asked_for(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((embedded / "pool.json").read_text(encoding="utf-8"))
    without = [row for row in rows if "image" not in row][:2]
    (tmp_path / "data.json").write_text(json.dumps([*rows[:3], *without]), encoding="utf-8")
    options = ["--model", embedded / "model", "--data", tmp_path / "data.json", "--out", tmp_path / "out"]
    options += ["--max-steps", 1, "--device", "cpu"]
    assert call("train", *options) == 2
    message = capsys.readouterr().err
    assert "3 of 5 rows can't be trained on" in message
    assert "--images" in message
    assert not (tmp_path / "out/rows.parquet").exists()
    assert call("train", *options, "--max-failed", "60") == 2
    assert "expected a share" in capsys.readouterr().err
    assert call("train", *options, "--max-failed", "60%") == 0
    assert "3 rows were skipped" in capsys.readouterr().out


def test_faults_are_reported_before_anything_large_is_imported(tmp_path: Path) -> None:
    for options in (["--data", "no.json"], ["--data", __file__, "--epochs", "0"], ["--data", __file__, "--merge"]):
        command = [sys.executable, "-X", "importtime", "-m", "delta_attnmask", "train", "--model", "a/b"]
        done = subprocess.run([*command, "--out", tmp_path, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (message,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert message.startswith("delta-attnmask: ")
        assert " torch\n" not in done.stderr


def test_which_mask_is_used(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_scores([1.0]), queries="answer", block=-4, form="delta", dtype="float32")
    assert MaskOptions().choose(None, run) == MaskSettings(queries="answer", block=-4)
    assert MaskOptions(fraction=0.1).choose("paper", run) == MaskSettings(queries="all", fraction=0.1, block=-2)
    assert MaskOptions().choose(None, None) == MaskSettings()
    with pytest.raises(SettingsError, match="expected paper"):
        MaskOptions().choose("best", None)
