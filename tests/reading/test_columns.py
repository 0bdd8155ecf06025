"""Tables are read by their groups; whatever is wrong with a file is one message, and with a row its reason."""

import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from delta_attnmask.errors import DataError, ReasonCode, RowError
from delta_attnmask.reading import columns
from delta_attnmask.reading.containers import open_container
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import survey
from delta_attnmask.records import ImageRef
from tests.reading.samples import PICTURES, TALK, column_rows, encode_image

N_ROWS = 40
SCHEMA = pa.schema({"n": pa.int64(), "images": PICTURES, "conversations": TALK})


def make_table(n_rows: int = N_ROWS, n_bytes: int = 1) -> pa.Table:
    """Each image has twice as many bytes of its own as there are rows before it, times `n_bytes`."""
    talk = [{"from": "human", "value": "<image>\n<image>\nQ"}, {"from": "gpt", "value": "A"}]
    rows = [
        {
            "n": n,
            "images": [{"bytes": bytes([n, k]) * n * n_bytes, "path": None} for k in range(2)],
            "conversations": talk,
        }
        for n in range(n_rows)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def write_stream(path: Path, table: pa.Table, rows: int = 7) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def write_file(path: Path, table: pa.Table, rows: int = 7) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def write_parquet(path: Path, table: pa.Table, rows: int = 7) -> Path:
    pq.write_table(table, path, row_group_size=rows)
    return path


@pytest.fixture(params=[write_parquet, write_stream, write_file])
def write(request):
    return request.param


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1), (6, 8), (7, 14), (13, 40), (39, 99), (40, 50), (5, 5)])
def test_rows_from_anywhere(tmp_path, write, start, stop):
    container = open_container(write(tmp_path / "x", make_table()))
    assert container.n_rows == N_ROWS
    rows = list(container.rows(start, stop))
    assert [row.row for row in rows] == [row.value["n"] for row in rows] == list(range(N_ROWS))[start:stop]


def test_a_group_is_read_in_batches(tmp_path, write):
    text = [f"{n}" * 500_000 for n in range(1, 30)]
    container = open_container(write(tmp_path / "x", pa.table({"a": text}), 100))
    starts = [first for first, _ in container.batches()]
    assert len(starts) > 2
    assert [row.value["a"] for row in container.rows(5, 25)] == text[5:25]


@pytest.mark.parametrize("n_bytes", [1, 20_000])
def test_embedded_images_in_any_order(tmp_path, write, n_bytes):
    """Also where more batches are read than are kept."""
    dataset = FileRows(write(tmp_path / "x", make_table(n_bytes=n_bytes)))
    wanted = [(n, k) for n in range(1, N_ROWS) for k in range(2)]
    records = list(dataset)
    random.Random(0).shuffle(wanted)
    for n, k in wanted[:30] + sorted(wanted)[:30]:
        assert dataset.read_image_bytes(records[n].images[k]) == bytes([n, k]) * n * n_bytes


@pytest.mark.parametrize("place", [(40, 0), (3, 2), (999999999999, 0)])
def test_places_that_lead_nowhere(tmp_path, write, place):
    container = open_container(write(tmp_path / "x", make_table()))
    with pytest.raises(RowError, match=r"the row has [02] images"):
        container.read_image(*place)


@pytest.mark.parametrize("text", ["embedded:0:0", "image 0 of row 0", "0|embedded:0:0", "blank:x.png"])
def test_a_path_is_a_path_whatever_its_text(tmp_path, write, text):
    """Also in a file whose first row holds an image: nobody gets another row's picture by a name."""
    pictures = [[{"bytes": encode_image(), "path": None}], [{"bytes": None, "path": text}]]
    talk = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]
    table = pa.table({"images": pa.array(pictures, PICTURES), "conversations": pa.array([talk] * 2, TALK)})
    dataset = FileRows(write(tmp_path / "x", table), tmp_path)
    first, second = dataset
    assert dataset.load_image(first.images[0]).size == (8, 6)
    assert second.images == (ImageRef(text),)
    with pytest.raises(RowError, match="No such file"):
        dataset.load_image(second.images[0])
    assert ReasonCode.IMAGE_MISSING in {fault.code for fault in survey(dataset).faults.values()}


def test_keys_depend_on_content_alone(tmp_path):
    table = make_table(4)
    keys = [row.key for row in open_container(write_parquet(tmp_path / "a", table)).rows()]
    moved = pa.concat_tables([table.slice(2), table.slice(0, 2)])
    assert [row.key for row in open_container(write_stream(tmp_path / "b", moved, 1)).rows()] == keys[2:] + keys[:2]
    other = table.set_column(0, "n", pa.array([9, 1, 2, 3]))
    assert [row.key for row in open_container(write_file(tmp_path / "c", other)).rows()][1:] == keys[1:]


def test_values_that_json_lacks(tmp_path):
    table = pa.table({"a": [date(2020, 1, 1)], "b": [Decimal("1.10")], "c": [[float("nan")]], "d": [{"e": None}]})
    row = next(open_container(write_parquet(tmp_path / "x", table)).rows())
    assert row.error is None
    assert len(row.key) == 64


def test_a_value_that_python_cannot_hold_fails_its_row_alone(tmp_path):
    table = pa.table({"t": pa.array([1, 2**62], pa.timestamp("s"))})
    first, second = open_container(write_stream(tmp_path / "x", table)).rows()
    assert first.error is None
    assert "a value that Python can't hold" in str(second.error)


def test_a_row_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "MAX_ROW_BYTES", 1000)
    rows = list(open_container(write_parquet(tmp_path / "x", pa.table({"a": ["x", "y" * 2000]}))).rows())
    assert [str(row.error or "") for row in rows] == ["", "longer than 1000 bytes"]


def test_no_rows(tmp_path, write):
    with pytest.raises(DataError, match="no rows"):
        FileRows(write(tmp_path / "x", make_table(0)))


def read_all(path: Path) -> list[Any]:
    dataset = FileRows(path)
    return [(record, [dataset.read_image_bytes(image) for image in record.images]) for record in dataset]


@pytest.mark.parametrize("keep", [5, 100, 1000, -1])
def test_truncated_files_are_refused(tmp_path, write, keep):
    path = write(tmp_path / "x", make_table())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="x"):
        read_all(path)


def test_files_with_changed_bytes_never_crash(tmp_path, write):
    """Flipped bits are found, or change what the rows say; the process lives."""
    path = write(tmp_path / "x", column_rows())
    whole, rng, n_refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 8))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            read_all(path)
        except DataError:
            n_refused += 1
    assert n_refused > 10


def test_a_dictionary_in_a_stream_is_read(tmp_path):
    table = pa.table({"conversations": pa.array(["a", "b", "a"]).dictionary_encode()})
    rows = open_container(write_stream(tmp_path / "x", table, 2)).rows()
    assert [row.value["conversations"] for row in rows] == ["a", "b", "a"]


def test_packed_arrow_files(tmp_path, monkeypatch):
    """Small ones are read, as pandas writes Feather packed; all of it is in memory then."""
    feather.write_feather(make_table(), tmp_path / "x.feather", compression="zstd")
    assert open_container(tmp_path / "x.feather").n_rows == N_ROWS
    monkeypatch.setattr(columns, "_MAX_UNPACKED", 100)
    with pytest.raises(DataError, match="save it without compression"):
        open_container(tmp_path / "x.feather")


def test_packed_files_are_told(tmp_path):
    (tmp_path / "x.json.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match=r"gzip.*decompress"):
        FileRows(tmp_path / "x.json.gz")


def test_real_images_decode(tmp_path):
    table = column_rows()
    assert table["images"][0][0]["bytes"].as_py() == encode_image()
    dataset = FileRows(write_parquet(tmp_path / "x", table))
    assert dataset.load_image(next(iter(dataset)).images[0]).size == (8, 6)
