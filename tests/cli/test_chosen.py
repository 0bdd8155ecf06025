"""Which settings `score` ends up with, and where it ends before it scores."""

from pathlib import Path

import pytest

from delta_attnmask.calibration import Calibration
from delta_attnmask.cli import main
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import STANDARD_GRID
from tests.calibrating.test_run import calibration_of


def call(*arguments: object) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return int(stopped.value.code or 0)


def test_an_empty_image_folder_ends_in_one_message(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    out = tmp_path / "run"
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", tmp_path / "images"]
    assert call("score", *given, "--out", out, "--limit", 80) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "delta-attnmask: none of the 79 rows with an image that were tried can be scored; row 0: image "
    )
    assert "No such file" in last
    assert "--images" in last
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("scores/*"))


def test_a_calibration_of_something_else_is_warned_of_and_recorded(
    embedded: Path, embedded_model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images")
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    given += ["--limit", 2, "--settings", tmp_path / "cal"]
    fitting = calibration_of(embedded_model, dataset)
    foreign = calibration_of(embedded_model, dataset, model="other-model", model_fingerprint="cafe")
    fitting.save(tmp_path / "cal")
    assert call("score", *given, "--out", tmp_path / "fitting") == 0
    assert "WARNING" not in capsys.readouterr().err
    foreign.save(tmp_path / "cal")
    assert call("score", *given, "--out", tmp_path / "foreign") == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING: ")]
    assert "model: other-model (float32 cafe) there, " in warning
    assert "data: " not in warning
    for name, found in (("fitting", fitting), ("foreign", foreign)):
        assert RunFolder.open(tmp_path / name).manifest.settings["calibration"] == found.sha256
    # The same settings from another calibration are the same run.
    assert call("score", *given, "--out", tmp_path / "fitting") == 0
    assert "holds another run" not in capsys.readouterr().err


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins to calibrate fails."""

    def fail(*_: object, **__: object) -> Calibration:
        raise AssertionError("a calibration was begun")

    monkeypatch.setattr("delta_attnmask.calibrating.calibrator.calibrate_rows", fail)


@pytest.mark.usefixtures("uncalibrated")
def test_a_folder_with_other_files_is_refused_before_anything_is_calibrated(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    assert call("score", *given, "--out", tmp_path) == 2
    assert "isn't empty and holds no run (it has 'thesis.tex'); choose another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("uncalibrated")
@pytest.mark.parametrize("command", ["score", "calibrate", "score --settings other"])
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"model": "other-model", "model_fingerprint": "cafe"}, "model: other-model (float32 cafe) there, "),
        ({"data": "other.json", "input": {"sha256": "f00d"}}, "data: other.json (SHA-256 f00d) there, "),
    ],
)
def test_the_calibration_of_something_else_is_not_replaced(
    embedded: Path,
    embedded_model: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    changes: dict[str, object],
    difference: str,
) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images")
    calibration_of(embedded_model, dataset).save(tmp_path / "other")
    out = tmp_path / "out"
    before = calibration_of(embedded_model, dataset, **changes).save(out).read_bytes()
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    words = [str(tmp_path / word) if word == "other" else word for word in command.split()]
    assert call(*words, *given, "--device", "cpu", "--out", out) == 2
    assert f"isn't replaced; choose another folder, or remove that file. What differs: {difference}" in (
        capsys.readouterr().err
    )
    assert (out / "calibration.json").read_bytes() == before
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("command", ["score", "calibrate"])
def test_a_calibration_uses_the_attention_code_that_is_asked_for(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Whoever is handed code that a CPU lacks says so."""
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    given += ["--out", tmp_path / "out", "--device", "cpu", "--attention", "triton"]
    assert call(command, *given) == 2
    assert "attention='triton': needs an NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out" / "calibration.json").exists()


def test_a_sweep_beside_scores_of_any_name(embedded: Path, tmp_path: Path) -> None:
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    out = tmp_path / "run"
    assert call("score", *given, "--out", out, "--limit", 2, "--settings", "paper", "--also", "loss,image_gain") == 0
    assert RunFolder.open(out).manifest.extra_columns == ("loss_without_image",)
    assert call("score", *given, "--out", tmp_path / "swept", "--limit", 2, "--settings", "paper", "--sweep") == 0
    assert len(RunFolder.open(tmp_path / "swept").manifest.settings["sweep"]) == len(STANDARD_GRID)


def test_single_options_keep_the_other_choices_of_a_calibration(
    embedded: Path, embedded_model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images")
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", embedded / "images"]
    calibration_of(embedded_model, dataset).save(tmp_path / "run")  # as `score` keeps it before it begins
    assert call("score", *given, "--limit", 4, "--out", tmp_path / "run", "--fraction", 0.3) == 0
    assert "fraction override the calibrated setting, so the calibration's figures don't hold" in (
        capsys.readouterr().err
    )
    settings = RunFolder.open(tmp_path / "run").manifest.settings
    assert (settings["fraction"], settings["queries"], settings["block"]) == (0.3, "answer", -2)
    assert settings["form"] == "relative_delta"
    assert "calibration" not in settings
