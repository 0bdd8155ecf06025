"""A survey counts every row once, and equal faults together."""

import pytest

from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import survey
from tests.reading.builders import make_row, write_images, write_list


@pytest.fixture
def dataset(tmp_path):
    rows = [make_row(n, f"a/{n % 12}.png") for n in range(40)] + [make_row(0), make_row(0), make_row(1), 5, {}]
    return FileRows(write_list(tmp_path / "data.json", rows), write_images(tmp_path, [f"a/{n}.png" for n in range(10)]))


def test_counts(dataset):
    calls = []
    found = survey(dataset, on_row=lambda: calls.append(1))
    assert (found.n_rows, found.n_ok, found.n_failed) == (45, 37, 8) == (len(calls), 37, 8)
    assert (found.n_images, found.n_text_only, found.n_duplicates) == (34, 3, 1)
    assert found.sources == {"a": 40, "": 5}
    assert found.turns == {2: 37}
    missing = found.faults["image_missing", "image …: No such file or directory"]
    assert (missing.n_rows, missing.rows) == (6, [10, 11, 22, 23, 34])
    assert "'a/10.png'" in missing.example
    assert sum(fault.n_rows for fault in found.faults.values()) == found.n_failed


def test_without_images(dataset):
    assert survey(dataset, load_images=False).n_failed == 2
