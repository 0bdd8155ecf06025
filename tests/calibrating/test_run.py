"""What calibration reads of a data set, and when an earlier one fits."""

from pathlib import Path

import pytest

from delta_attnmask.calibrating.calibrator import calibrate_rows, read_donors
from delta_attnmask.calibrating.planting import stratified_sample
from delta_attnmask.calibrating.preset_choice import made_with
from delta_attnmask.calibration import Calibration
from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.judge import Feature, Judge
from delta_attnmask.modeling.load import LoadedModel, model_fingerprint
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import MaskSettings
from tests.reading.builders import make_row, write_list


def test_sources_behind_one_another_are_all_sampled(tmp_path: Path) -> None:
    paths = [
        write_list(tmp_path / f"{name}.json", [make_row(n, task_name=name) for n in range(n_rows)])
        for name, n_rows in (("first", 400), ("last", 100))
    ]
    dataset = FileRows(paths, tmp_path)
    assert len(read_donors(dataset)) == 500
    records = read_donors(dataset, 100)
    assert len(records) == 100
    assert [record.source for record in records].count("last") == pytest.approx(20, abs=3)
    assert [record.row for record in records] == sorted({record.row for record in records})
    assert {record.source for record in stratified_sample(records, 30, seed=0)} == {"first", "last"}


def calibration_of(loaded: LoadedModel, dataset: FileRows, **changes: object) -> Calibration:
    """What `calibrate` might have found with this model on this data, but for `changes` of the report."""
    settings = MaskSettings(queries="answer", fraction=0.4, block=-2)
    report = {
        "settings": settings.to_dict(),
        "form": "relative_delta",
        "model": loaded.name,
        "model_fingerprint": model_fingerprint(loaded.model),
        "dtype": "float32",
        "data": dataset.name,
        "input": {"sha256": dataset.fingerprint.sha256},
    }
    return Calibration(report | changes)


def test_differences_are_named(embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(write_list(tmp_path / "data.json", [make_row(0)]), tmp_path)
    both = made_with(embedded_model, dataset)
    assert calibration_of(embedded_model, dataset).differences(both) == []
    other = calibration_of(embedded_model, dataset, model="tiny", model_fingerprint="cafe", input={"sha256": "f00d"})
    model, data = other.differences(both)
    assert model.startswith(f"model: tiny (float32 cafe) there, {embedded_model.name} (float32 ")
    assert data.startswith(f"data: {dataset.name} (SHA-256 f00d) there, {dataset.name} (SHA-256 ")
    assert other.differences(made_with(None, dataset)) == [data]
    assert other.differences(made_with(embedded_model)) == [model]


def test_a_calibration_keeps_its_identity_on_disk(embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(write_list(tmp_path / "data.json", [make_row(0)]), tmp_path)
    found = calibration_of(embedded_model, dataset, warnings=["é"], seconds=1.25)
    found.save(tmp_path / "cal")
    assert Calibration.load(tmp_path / "cal").sha256 == found.sha256
    assert Calibration(dict(found.report) | {"seconds": 1.5}).sha256 != found.sha256
    Calibration(dict(found.report) | {"schema": 2}).save(tmp_path / "old")
    with pytest.raises(ArtifactError, match="made by another version; calibrate again"):
        Calibration.load(tmp_path / "old")


def test_figures_are_those_of_the_score_that_was_calibrated(embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(write_list(tmp_path / "data.json", [make_row(0)]), tmp_path)
    masked = calibration_of(embedded_model, dataset)
    run = masked.settings.to_dict() | {"dtype": "float32"}
    assert masked.covers("relative_delta", run)
    assert not masked.covers("n_tokens", run)
    assert not masked.covers("relative_delta", run | {"fraction": 0.6})
    unmasked = calibration_of(embedded_model, dataset, form="low_loss", settings=MaskSettings(fraction=0).to_dict())
    assert unmasked.covers("low_loss", run | {"fraction": 0.6})  # reads no delta
    judge = Judge((Feature("loss", (0.0, 1.0), -1.0),), 0.0)
    judged = Calibration(dict(unmasked.report) | {"form": "p_good", "judge": judge.to_dict()})
    assert judged.covers("p_good", run | {"judge": judge.sha256})
    assert not judged.covers("p_good", run | {"judge": "another"})


def test_a_stopped_calibration_resumes_without_scoring_again(embedded_model: LoadedModel, tmp_path: Path) -> None:
    """Killed after its first unit, it scores the second alone, and finds the same."""
    rows = [make_row(n, source="ab"[n % 2]) for n in range(60)]
    dataset = FileRows(write_list(tmp_path / "data.json", rows), tmp_path)
    grid = [MaskSettings(fraction=0.4, block=-2)]
    n_forwards = []
    hook = embedded_model.model.register_forward_hook(lambda *_: n_forwards.append(1))

    def stop(n_done: int, n_rows: int) -> None:
        raise KeyboardInterrupt

    def calibrated(**options: object) -> tuple[Calibration, int]:
        n_forwards.clear()
        return calibrate_rows(embedded_model, dataset, grid=grid, **options), len(n_forwards)

    try:
        whole, n_whole = calibrated()
        with pytest.raises(KeyboardInterrupt):
            calibrated(folder=tmp_path / "cal", on_progress=stop)
        n_first = len(n_forwards)
        assert len([*(tmp_path / "cal").rglob("unit-*.json")]) == 1
        resumed, n_second = calibrated(folder=tmp_path / "cal")
        assert max(n_first, n_second) < n_whole
        assert {**resumed.report, "seconds": 0} == {**whole.report, "seconds": 0}
        other, n_other = calibrated(folder=tmp_path / "cal", seed=1)
        assert n_other > n_second
        assert other.report != whole.report
    finally:
        hook.remove()
    resumed.save(tmp_path / "cal")
    assert [path.name for path in (tmp_path / "cal").iterdir()] == ["calibration.json"]


def test_a_calibration_that_fails_keeps_nothing(embedded_model: LoadedModel, tmp_path: Path) -> None:
    """The images may be put in their place, and the same command is to be run again."""
    rows = [make_row(n, f"{n}.png") for n in range(60)]
    dataset = FileRows(write_list(tmp_path / "data.json", rows), tmp_path)
    with pytest.raises(DataError, match="none of the 60 rows that were tried"):
        calibrate_rows(embedded_model, dataset, grid=[], folder=tmp_path / "cal")
    assert not (tmp_path / "cal" / "calibrating").exists()
