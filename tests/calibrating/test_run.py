"""What calibration reads of a data set, and when an earlier one fits."""

from pathlib import Path

import pytest

from delta_attnmask.calibrating import run
from delta_attnmask.calibrating.sample import stratified_sample
from delta_attnmask.reading.dataset import Dataset
from tests.reading.builders import make_row, write_list


def test_sources_behind_one_another_are_all_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write_list(tmp_path / f"{name}.json", [make_row(n, task_name=name) for n in range(n_rows)])
        for name, n_rows in (("first", 400), ("last", 100))
    ]
    dataset = Dataset(paths, tmp_path)
    assert len(run.read_donors(dataset)) == 500
    monkeypatch.setattr(run, "_DONOR_ROWS", 100)
    records = run.read_donors(dataset)
    assert len(records) == 100
    assert [record.source for record in records].count("last") == pytest.approx(20, abs=3)
    assert [record.row for record in records] == sorted({record.row for record in records})
    assert {record.source for record in stratified_sample(records, 30, seed=0)} == {"first", "last"}
