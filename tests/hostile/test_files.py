"""Files that nobody has vetted: each gives rows or one DataError, soon, and never a Python error."""

import gzip
import json
import os
import struct
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask.errors import DeltaAttnMaskError, RowError
from delta_attnmask.reading import tars
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import Survey, survey
from tests.reading.builders import make_row, write_lines, write_list
from tests.reading.samples import PICTURES, TALK, encode_image, from_value, write_tar
from tests.reading.samples import TEXT_ROW as TEXT_TURNS

ROW = json.dumps(make_row(0)).encode()


def look(path: Path) -> Survey:
    return survey(FileRows(path, path.parent))


def reasons(path: Path) -> list[str]:
    return [fault.example for fault in look(path).faults.values()]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar header, whatever its size says."""
    member = tarfile.TarInfo(name)
    member.type = kind
    raw = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff\xff\xff\xff" + struct.pack(">q", size) if size < 0 else b"%011o\0" % size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-1, -512, -1024, -(10**15)])
def test_a_tar_whose_sizes_lead_backwards(tmp_path, kind, size):
    path = tmp_path / "x.tar"
    path.write_bytes(member("a.json", ROW) + header("b.json", size, kind) + bytes(1024))
    with pytest.raises(DeltaAttnMaskError, match=f"a header of {size} bytes"):
        look(path)


@pytest.mark.parametrize(
    ("extended", "message"),
    [
        (member("x", b"x\0", tarfile.GNUTYPE_LONGNAME) * 2000, "recursion"),
        (member("x", b"12 path=abc\n", tarfile.XHDTYPE) * 2000, "recursion"),
        (member("x", b"9" * 100_000, tarfile.XHDTYPE), "a header of 100000 bytes"),  # takes the square of it in time
    ],
)
def test_extended_headers_of_a_tar(tmp_path, extended, message):
    path = tmp_path / "x.tar"
    path.write_bytes(member("a.json", ROW) + extended + member("b.json", ROW) + bytes(1024))
    with pytest.raises(DeltaAttnMaskError, match=message):
        look(path)


def test_names_longer_than_a_tar_header_are_read(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("d" * 300 + "/a.json", ROW), ("é" * 2000 + ".json", ROW)])
    assert look(path).n_ok == 2


def test_an_embedded_image_is_held_to_the_limits_of_a_file(tmp_path, monkeypatch):
    row = json.dumps(make_row(0, "x.png")).encode()
    path = write_tar(tmp_path / "x.tar", [("a.json", row), ("a.png", encode_image())])
    assert look(path).n_ok == 1
    dataset = FileRows(path, image_limits=ImageLimits(max_bytes=20))
    with pytest.raises(RowError, match="more than 20 bytes"):
        dataset.load_image(next(iter(dataset)).images[0])
    monkeypatch.setattr(tars, "_MAX_IMAGE_BYTES", 30)
    with pytest.raises(RowError, match="more than 30 bytes"):
        dataset.load_image(next(iter(dataset)).images[0])


def test_a_parquet_file_whose_dictionary_holds_long_values(tmp_path):
    """Fifty kilobytes that are a gigabyte when all rows are unpacked at once."""
    n_rows = 1000
    talk = pa.array([from_value(TEXT_TURNS)] * n_rows, TALK)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), pa.array(["x" * (1 << 20)]))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"conversations": talk, "long": long}), path, store_schema=False)
    before = pa.default_memory_pool().max_memory()
    container = FileRows(path).parts[0].container
    next(iter(container.rows()))
    assert path.stat().st_size < 100_000
    assert pa.default_memory_pool().max_memory() - before < 256 << 20


def test_a_parquet_footer_that_contradicts_itself(tmp_path):
    """pyarrow ends the process where it is asked for such a column's metadata: an optional value becomes required."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"conversations": pa.array([from_value(TEXT_TURNS)], TALK)}), path)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:footer] + data[footer:].replace(b"\x25\x02", b"\x25\x00", 1))
    with pytest.raises(DeltaAttnMaskError, match="histogram size mismatch"):
        look(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json", b""),
        ("space.jsonl", b" \n\n \n"),
        ("nul.json", bytes(4096)),
        ("nul.parquet", bytes(4096)),
        ("nul.tar", bytes(4096)),
        ("magic.parquet", b"PAR1"),
        ("magic.arrow", b"ARROW1"),
        ("stream.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(64)),
        ("utf16.json", json.dumps([make_row(0)]).encode("utf-16")),
        ("utf16.jsonl", json.dumps(make_row(0)).encode("utf-16")),
        ("gz.json", gzip.compress(ROW)),
        ("image.json", encode_image()),
        ("scalar.json", b"3"),
        ("list.json", b"[" * 100_000),
        ("object.json", b'{"a":' * 100_000),
        ("string.json", b'["' + b"x" * 100_000),
        ("text.jsonl", b"not JSON\n" * 3),
        ("rows.json", b"[[], [[]], 3.5, null, true]"),
        ("keys.json", b'[{"\\ud800": "\\udfff"}]'),
    ],
)
def test_files_that_are_no_data(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeltaAttnMaskError, match=r"."):
        look(tmp_path / name)


@pytest.mark.parametrize(
    ("extension", "content"),
    [("parquet", ROW), ("arrow", b"[" + ROW + b"]"), ("csv", ROW), ("jsonl", b"\xef\xbb\xbf[" + ROW + b"]"), ("", ROW)],
)
def test_the_extension_means_nothing(tmp_path, extension, content):
    path = tmp_path / f"x.{extension}"
    path.write_bytes(content)
    assert look(path).n_ok == 1


def test_columns_under_another_extension(tmp_path):
    table = pa.table({"conversations": pa.array([from_value(TEXT_TURNS)], TALK), "images": pa.array([[]], PICTURES)})
    pq.write_table(table, tmp_path / "x.json")
    assert look(tmp_path / "x.json").n_ok == 1


@pytest.mark.parametrize("name", ["fifo", "folder", "loop", "zero", "nothing", "n" * 300, "d/" * 3000 + "x"])
def test_what_is_no_file_never_waits(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(DeltaAttnMaskError):
        FileRows(tmp_path / name)


def test_folders_with_links_in_a_loop(tmp_path):
    write_list(tmp_path / "x.json", [make_row(0)])
    for name in ("a", "b", "c"):
        (tmp_path / name).symlink_to(tmp_path)
    assert look(tmp_path).n_ok == 1
    assert FileRows(str(tmp_path / "**" / "*.json")).n_rows == 1


@pytest.mark.parametrize("entry", [{"formatting": [1]}, {"columns": [1]}, {"tags": {"role_tag": {}}}, {"columns": 3}])
def test_an_entry_of_dataset_info_that_says_nonsense(tmp_path, entry):
    path = write_list(tmp_path / "x.json", [make_row(0)])
    info = {"x": {"file_name": "x.json", "formatting": "sharegpt"} | entry}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DeltaAttnMaskError, match=r"dataset_info\.json"):
        FileRows(path)


def test_a_mixture_of_billions_of_texts(tmp_path):
    """Each line names the one before it ten times."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    path = tmp_path / "x.yaml"
    path.write_text("\n".join([*lines, "datasets: [{json_path: x.json, sampling_strategy: *a11}]"]))
    with pytest.raises(DeltaAttnMaskError, match="aliases"):
        FileRows(path)


@pytest.mark.parametrize("source", [{"data": "x" * 5000}, {"data": "\0"}, {"data": "x.json", "images": "y" * 5000}])
def test_a_mixture_of_impossible_paths(tmp_path, source):
    write_list(tmp_path / "x.json", [make_row(0)])
    path = write_list(tmp_path / "mixture.json", {"sources": [source]})  # type: ignore[arg-type]
    with pytest.raises(DeltaAttnMaskError):
        FileRows(path)


def test_rows_around_a_long_string(tmp_path):
    """A row longer than allowed costs itself alone; so do NUL bytes and duplicate keys cost nothing."""
    rows = [make_row(0), make_row(1) | {"id": "x" * (17 << 20)}, make_row(2)]
    assert [(fault.rows, fault.example) for fault in look(write_lines(tmp_path / "x.jsonl", rows)).faults.values()] == [
        ([1], f"longer than {16 << 20} bytes")
    ]
    twice = ROW[:-1] + b', "conversations": []}'
    (tmp_path / "y.jsonl").write_bytes(b"\n".join([ROW, ROW.replace(b"Which", b"\\u0000Which"), twice]))
    found = look(tmp_path / "y.jsonl")
    assert [fault.example for fault in found.faults.values()] == ["empty conversation"]
    assert found.n_ok == 2
