"""Rows that mean to cost more than their bytes: each is a failed row with its reason, soon."""

import base64
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from delta_attnmask.errors import RowError
from delta_attnmask.reading.conversation import read_image
from delta_attnmask.reading.images import ImageLimits, decode_image, iter_images, read_image_file
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import survey
from delta_attnmask.records import ImageRef
from tests.reading.builders import make_row, write_images


def reason(folder: Path, row: object) -> str:
    """Why a row between two good ones fails; empty if it doesn't."""
    path = write_lines_of(folder / "x.jsonl", [make_row(0), row, make_row(2)])
    found = survey(FileRows(path, folder))
    assert found.n_rows == 3
    assert all(fault.rows == [1] for fault in found.faults.values())
    return "".join(fault.example for fault in found.faults.values())


def turns(*texts: object) -> dict[str, object]:
    names = ("human", "gpt")
    return {"conversations": [{"from": names[n % 2], "value": text} for n, text in enumerate(texts)]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([], "expected an object, got a list"),
        (None, "expected an object"),
        (7, "expected an object, got a number"),
        (turns(1, "b"), "`value` must be a string, got a number"),
        (turns("a", {"b": 1}), "`value` must be a string, got an object"),
        (turns("a", "see <image>") | {"image": "x.png"}, "<image> in assistant's text"),
        (turns("<image>" * 50, "b"), "50 <image> for 0 images"),
        (turns("a", "\ud800"), "a lone surrogate"),
        (turns("<image>", "b") | {"image": 12}, "`image` must be a path or a list of paths, got a number"),
        (turns("<image>", "b") | {"image": {"path": ["a"]}}, "`image` must be a path"),
        (turns("<image>" * 1001, "b") | {"image": ["x.png"] * 1001}, "1001 images, more than 1000"),
        ({"conversations": [{"from": ["human"], "value": "a"}]}, "`from` must be one of"),
    ],
)
def test_what_a_row_may_not_be(tmp_path, row, expected):
    assert expected in reason(tmp_path, row)


@pytest.mark.parametrize(
    "row",
    [
        turns("nul \0", "b\0"),
        turns("a", "b") | {"id": 10**4000},
        turns("a", "b") | {"id": "\ud800" * 9000, "source": "\udfff"},
        turns(*["a"] * 5000),
        turns("a", "b") | {"deep": json.loads("[" * 900 + "]" * 900)},
    ],
)
def test_odd_rows_that_can_be_used(tmp_path, row):
    assert reason(tmp_path, row) == ""


@pytest.mark.parametrize(
    "reference",
    [
        "C:\\Windows\\x.png",
        "..\\..\\x.png",
        "%2e%2e/x.png",
        "file:/etc/passwd",
        "//host/x.png",
        "http:/host/x.png",
        "HTTP://host/x.png",
        "data:http://host/x.png",
        "embedded:0:0",
        "~/x.png",
        "$HOME/x.png",
        "x.png\n",
    ],
)
def test_no_reference_leads_out_of_the_folder(tmp_path, reference):
    """Nothing is expanded, decoded or fetched: each is a name below the folder, or refused."""
    write_images(tmp_path, ["x.png"])
    (tmp_path / "images").mkdir()
    dataset = FileRows(write_lines_of(tmp_path / "x.jsonl", [make_row(0)]), tmp_path / "images")
    with pytest.raises(RowError):
        dataset.load_image(read_image(reference, "image"))


def test_a_file_of_that_very_name_is_found(tmp_path):
    write_images(tmp_path, ["%2e%2e.png", "C:\\x.png"])
    for path in ("%2e%2e.png", "C:\\x.png"):
        assert decode_image(read_image_file(path, tmp_path)).size == (8, 8)


def test_the_images_of_a_row_are_counted_together(tmp_path):
    write_images(tmp_path, ["x.png"])
    limits, loaded = ImageLimits(max_row_pixels=150), []

    def load(ref: ImageRef) -> Image.Image:
        loaded.append(ref)
        return decode_image(read_image_file(ref.path, tmp_path))

    assert len(list(iter_images([ImageRef("x.png")] * 2, load, limits))) == 2
    with pytest.raises(RowError, match="more than 150 pixels together"):
        list(iter_images([ImageRef("x.png")] * 100, load, limits))
    assert len(loaded) == 5
    path = write_lines_of(tmp_path / "x.jsonl", [make_row(0)])
    dataset = FileRows(path, tmp_path, image_limits=limits)
    assert len(dataset.load_images([ImageRef("x.png")] * 2)) == 2
    with pytest.raises(RowError, match="more than 150 pixels together"):
        dataset.load_images([ImageRef("x.png")] * 3)


def test_a_jpeg_of_thousands_of_scans():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert decode_image(data).size == (64, 64)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(RowError, match="scans: more than 100"):
        decode_image(data[:-2] + last * 5000 + b"\xff\xd9")


fields = st.sampled_from(
    ["conversations", "messages", "image", "images", "id", "from", "value", "role", "content", "type"]
)
texts = st.sampled_from(["human", "gpt", "user", "assistant", "<image>", "image", "text", "../x", "\ud800", "data:,"])
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(fields | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(hostile, min_size=1, max_size=6))
def test_every_row_is_there_once_whatever_it_is(tmp_path, rows):
    path = write_lines_of(tmp_path / "x.jsonl", [make_row(0), *rows, make_row(1)])
    records = list(FileRows(path, tmp_path, format="llava"))
    assert [record.row for record in records] == list(range(len(rows) + 2))
    assert all(bool(record.reason) != bool(record.turns) for record in records)
    assert (
        survey(FileRows(path, tmp_path, format="messages")).n_failed == len(records) or "messages" in path.read_text()
    )


def write_lines_of(path: Path, rows: list[object]) -> Path:
    """With lone surrogates escaped, as a JSON file can hold them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_data_uri_is_data_alone(tmp_path):
    uri = "data:text/html;base64," + base64.b64encode(b"<script>alert(1)</script>").decode()
    assert "expected JPEG, PNG" in reason(tmp_path, turns("<image>", "b") | {"image": uri})
