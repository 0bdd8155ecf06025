"""What calibration reads of a data set, and when an earlier one fits."""

from dataclasses import replace
from pathlib import Path

import pytest
from delta_attnmask.calibrating.calibrate import Calibration

from delta_attnmask.calibrating import run
from delta_attnmask.calibrating.choice import Candidate
from delta_attnmask.calibrating.sample import stratified_sample
from delta_attnmask.modeling.load import LoadedModel, model_fingerprint
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import MaskSettings
from tests.reading.builders import make_row, write_list


def test_sources_behind_one_another_are_all_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write_list(tmp_path / f"{name}.json", [make_row(n, task_name=name) for n in range(n_rows)])
        for name, n_rows in (("first", 400), ("last", 100))
    ]
    dataset = FileRows(paths, tmp_path)
    assert len(run.read_donors(dataset)) == 500
    monkeypatch.setattr(run, "_DONOR_ROWS", 100)
    records = run.read_donors(dataset)
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
        "data": str(dataset.path),
        "input": {"sha256": dataset.fingerprint.sha256},
    }
    return Calibration(Candidate("relative_delta", settings), report | changes)


def test_differences_are_named(embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(write_list(tmp_path / "data.json", [make_row(0)]), tmp_path)
    assert run.differences(calibration_of(embedded_model, dataset), embedded_model, dataset) == []
    other = calibration_of(embedded_model, dataset, model="tiny", model_fingerprint="cafe", input={"sha256": "f00d"})
    model, data = run.differences(other, embedded_model, dataset)
    assert model.startswith(f"model: tiny (float32 cafe) there, {embedded_model.name} (float32 ")
    assert data.startswith(f"data: {dataset.path} (SHA-256 f00d) there, {dataset.path} (SHA-256 ")
    assert run.differences(other, None, dataset) == [data]
    assert run.differences(other, embedded_model, None) == [model]


def test_a_calibration_keeps_its_identity_on_disk(embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(write_list(tmp_path / "data.json", [make_row(0)]), tmp_path)
    found = calibration_of(embedded_model, dataset, warnings=["é"], seconds=1.25)
    run.write_calibration(found, tmp_path / "cal")
    assert run.read_calibration(tmp_path / "cal").sha256 == found.sha256
    assert replace(found, report=found.report | {"seconds": 1.5}).sha256 != found.sha256
