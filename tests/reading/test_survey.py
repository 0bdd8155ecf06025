"""A survey counts every row once, and equal faults together."""

import json

import pytest
from PIL import Image

from delta_attnmask.reading.copies import find_copies
from delta_attnmask.reading.rows import FileRows, MemoryRows
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
    assert (found.n_images, found.n_text_only, found.duplicates) == (34, 3, {41: 40})
    assert found.sources == {"a": 40, "": 5}
    assert found.turns == {2: 37}
    missing = found.faults["image_missing", "image …: No such file or directory"]
    assert (missing.n_rows, missing.rows) == (6, [10, 11, 22, 23, 34])
    assert "'a/10.png'" in missing.example
    assert sum(fault.n_rows for fault in found.faults.values()) == found.n_failed


def test_every_bad_row_is_listed(dataset):
    found = survey(dataset)
    assert [one["row"] for one in found.failed] == [10, 11, 22, 23, 34, 35, 43, 44]
    assert found.failed[0] == {
        "row": 10,
        "id": "10",
        "source": "a",
        "reason_code": "image_missing",
        "reason": "image 'a/10.png': No such file or directory",
    }


def test_rows_that_differ_in_their_ids_and_file_names_alone_are_copies(tmp_path):
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "c.png")
    rows = [make_row(0, "a.png"), make_row(0, "b.png"), make_row(0, "c.png"), make_row(0), make_row(1, "a.png")]
    rows = [row | {"id": f"{number:09d}"} for number, row in enumerate([*rows, make_row(0)])]
    dataset = FileRows(write_list(tmp_path / "data.json", rows), tmp_path)
    assert find_copies(dataset).tolist() == [0, 0, 2, 3, 4, 3]
    assert survey(dataset).duplicates == {1: 0, 5: 3}
    assert survey(dataset, load_images=False).duplicates == {5: 3}  # by their names, these are other images
    pictures = MemoryRows([row | {"image": Image.open(tmp_path / row["image"])} for row in rows[:3]])
    assert find_copies(pictures).tolist() == [0, 0, 2]


def test_keys_that_nothing_reads(tmp_path):
    rows = [make_row(n, topic="x") | {"img": "a.png"} for n in range(3)]
    assert survey(FileRows(write_list(tmp_path / "data.json", rows))).unread_keys == {"topic": 3, "img": 3}
    row = {"instruction": "a", "output": "b", "note": "c", "pictures": []}
    path = write_list(tmp_path / "alpaca.json", [row])
    columns = {"prompt": "instruction", "response": "output", "images": "pictures"}
    entry = {"file_name": path.name, "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    assert survey(FileRows(path)).unread_keys == {"note": 1}


def test_without_images(dataset):
    assert survey(dataset, load_images=False).n_failed == 2
