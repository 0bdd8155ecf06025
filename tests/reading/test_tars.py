"""Tars are read by their headers; nothing is unpacked, and no name leads anywhere."""

import io
import json
import tarfile

import pytest

from delta_attnmask.errors import DataError, RowError
from delta_attnmask.reading.containers import open_container
from delta_attnmask.reading.rows import FileRows
from tests.reading.samples import encode_image, write_tar

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
RED, BLUE = encode_image(), encode_image("blue")


def row(**fields: object) -> bytes:
    return json.dumps({"messages": [Q, A]} | fields).encode()


def reasons(path):
    return [str(raw.error or "") for raw in open_container(path).rows()]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, [RED, BLUE]),
        ({"images": ["k.1.png", "k.0.png"]}, [BLUE, RED]),
        ({"images": ["any/k.0.png"]}, [RED]),
        ({"images": ["one.png", "other.png"]}, [RED, BLUE]),
        ({"images": []}, [RED, BLUE]),
    ],
)
def test_which_images_a_row_has(tmp_path, named, expected):
    path = write_tar(tmp_path / "x.tar", [("k.0.png", RED), ("k.json", row(**named)), ("k.1.png", BLUE)])
    dataset = FileRows(path)
    record = next(iter(dataset))
    assert record.reason == ""
    assert [dataset.read_image_bytes(image) for image in record.images] == expected


def test_captions(tmp_path):
    dataset = FileRows(write_tar(tmp_path / "x.tar", [("a/1.jpg", RED), ("a/1.txt", b"A bear.")]))
    assert dataset.format_name.startswith("minigpt4:")
    assert [turn.text for turn in next(iter(dataset)).turns] == ["Describe this image in detail.", "A bear."]


def test_bad_samples_fail_alone(tmp_path):
    members = [
        ("0.json", row()),
        ("1.jpg", RED),
        ("2.json", b"{"),
        ("3.json", b"[]"),
        ("4.json", b"{}"),
        ("4.more.json", b"{}"),
        ("5.txt", b"\xff"),
        ("6.json", row(images=["a", "b"])),
        ("6.png", RED),
        ("7.json", row()),
    ]
    assert reasons(write_tar(tmp_path / "x.tar", members)) == [
        "",
        "0 .json files in the sample, expected one, or a .txt",
        "not JSON: Expecting property name enclosed in double quotes at character 1 of the row",
        "expected an object in the .json",
        "2 .json files in the sample, expected one, or a .txt",
        "invalid UTF-8 at byte 0 of the text",
        "2 images named in the .json, 1 in the sample",
        "",
    ]


def test_names_lead_nowhere(tmp_path):
    members = [("../../etc/passwd.jpg", RED), ("../../etc/passwd.json", row()), ("/etc/shadow.json", row())]
    dataset = FileRows(write_tar(tmp_path / "x.tar", members))
    assert [record.reason for record in dataset] == ["", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]


def test_links_and_folders_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("0.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        member = tarfile.TarInfo("0.json")
        member.size = len(row())
        tar.addfile(member, io.BytesIO(row()))
    record = next(iter(FileRows(tmp_path / "x.tar")))
    assert (record.reason, record.images) == ("", ())


@pytest.fixture
def many(tmp_path):
    """Names of every length, so that some need headers of their own."""
    members = []
    for n in range(12):
        name = f"{n:03d}" + "é" * (20 * n)
        members += [(f"{name}.png", RED if n % 2 else BLUE), (f"{name}.json", row(id=n))]
    return write_tar(tmp_path / "x.tar", members)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1), (5, 7), (11, 99), (12, 13), (4, 4)])
def test_rows_from_anywhere(many, start, stop):
    container = open_container(many)
    assert [raw.value["id"] for raw in container.rows(start, stop)] == list(range(12))[start:stop]
    assert container.n_rows == 12


def test_images_from_anywhere(many):
    container = open_container(many)
    assert [container.read_image(n, 0) for n in (11, 0, 6)] == [RED, BLUE, BLUE]
    for row, number in ((12, 0), (0, 1)):
        with pytest.raises(RowError, match=r"the row has [01] images"):
            container.read_image(row, number)


def test_keys_are_of_the_content_not_of_the_name(tmp_path):
    members = [("0.json", row()), ("0.png", RED), ("1.json", row()), ("1.png", RED), ("2.json", row()), ("2.png", BLUE)]
    keys = [raw.key for raw in open_container(write_tar(tmp_path / "x.tar", members)).rows()]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
def test_a_truncated_tar_is_refused(many, keep):
    many.write_bytes(many.read_bytes()[: int(many.stat().st_size * keep)])
    with pytest.raises(DataError, match=r"truncated|broken|no tar"):
        list(FileRows(many))


def test_a_broken_header_ends_no_tar_silently(many):
    raw = bytearray(many.read_bytes())
    start = open_container(many).spans[6, 0]
    raw[start + 3] ^= 1
    many.write_bytes(raw)
    with pytest.raises(DataError, match="broken at byte"):
        list(FileRows(many))


def test_what_is_no_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 500)
    with pytest.raises(DataError, match="no tar"):
        FileRows(tmp_path / "x.tar")
    write_tar(tmp_path / "y.tar", [])
    with pytest.raises(DataError, match="no rows"):
        FileRows(tmp_path / "y.tar")
