"""A data set counts, fingerprints and reads from any row on."""

import pickle
from hashlib import sha256

import pytest

from delta_attnmask.errors import DataError, RowError, SettingsError
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef
from tests.reading.builders import make_row, write_images, write_lines, write_list

N_ROWS = 150


@pytest.fixture(params=[write_list, write_lines])
def dataset(request, tmp_path):
    rows = [make_row(n) for n in range(N_ROWS)]
    rows[70] = {"conversations": []}
    return FileRows(request.param(tmp_path / "data.json", rows))


def test_every_row_is_there(dataset):
    records = list(dataset)
    assert [record.row for record in records] == list(range(N_ROWS)) == list(range(len(dataset)))
    assert [record.id for record in records if record.reason] == [""]
    assert dataset.format_name == "llava"


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 150), (63, 65), (64, 64), (71, 128), (149, 500), (200, 300)])
def test_rows_from_anywhere(dataset, start, stop):
    assert list(dataset.records(start, stop)) == list(dataset)[start:stop]


def test_late_rows_are_read_without_the_early_ones(dataset):
    assert len(dataset) == N_ROWS
    late = list(dataset.records(140, 150))
    content = dataset.path.read_bytes()
    dataset.path.write_bytes(content[:1] + b" " * 4000 + content[4001:])  # nothing of the first rows is left
    assert list(dataset.records(140, 150)) == late


def test_limit(dataset):
    limited = FileRows(dataset.path, limit=10)
    assert len(limited) == 10 == len(list(limited))
    assert [record.row for record in limited.records(5, 150)] == [5, 6, 7, 8, 9]
    assert len(FileRows(dataset.path, limit=1000)) == N_ROWS


def test_fingerprint(dataset):
    content = dataset.path.read_bytes()
    assert (dataset.fingerprint.sha256, dataset.fingerprint.n_bytes) == (sha256(content).hexdigest(), len(content))


def test_a_worker_can_be_handed_one(dataset):
    assert len(dataset) == N_ROWS
    assert list(pickle.loads(pickle.dumps(dataset)).records(64, 70)) == list(dataset)[64:70]


def test_images(tmp_path):
    path = write_list(tmp_path / "data.json", [make_row(0, "a/x.png")])
    dataset = FileRows(path, write_images(tmp_path / "images", ["a/x.png"]))
    assert dataset.load_image(ImageRef("a/x.png")).size == (8, 8)
    with pytest.raises(RowError, match="no image folder"):
        FileRows(path).load_image(ImageRef("a/x.png"))


def test_what_cannot_be_used_is_refused_at_once(tmp_path):
    path = write_list(tmp_path / "data.json", [make_row(0)])
    with pytest.raises(DataError, match="has no rows"):
        FileRows(write_list(tmp_path / "empty.json", []))
    with pytest.raises(DataError, match="isn't a directory"):
        FileRows(path, tmp_path / "none")
    with pytest.raises(DataError, match="no known format"):
        FileRows(write_list(tmp_path / "other.json", [{"text": 1}]))
    with pytest.raises(SettingsError, match="format='x'"):
        FileRows(path, format="x")
    with pytest.raises(SettingsError, match="limit=0"):
        FileRows(path, limit=0)
    assert next(iter(FileRows(write_list(tmp_path / "other.json", [{"text": 1}]), format="llava"))).reason


def test_a_file_broken_at_its_end_is_refused_when_counted(tmp_path):
    path = write_list(tmp_path / "data.json", [make_row(n) for n in range(300)])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="truncated"):
        len(FileRows(path))
