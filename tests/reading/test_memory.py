"""Rows in memory: what a `datasets.Dataset` or a list of dicts holds is read as from files, and left as it is."""

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from delta_attnmask.errors import DataError, ReasonCode, SettingsError
from delta_attnmask.reading.memory import ArrowRows
from delta_attnmask.reading.rows import FileRows, MemoryRows, Rows, load_rows
from delta_attnmask.records import ImageRef, Turn
from tests.reading.builders import make_row, write_images, write_lines
from tests.reading.samples import encode_image

TALK = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": "Red."}]
SAID = (Turn("user", (None, "Which colour?")), Turn("assistant", ("Red.",)))
MESSAGES = [{"role": "user", "content": "Which colour?"}, {"role": "assistant", "content": "Red."}]
PROMPT = {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (8, 6), colour)


def colours(rows: Rows) -> list[list[tuple[int, ...]]]:
    return [[rows.load_image(ref).getpixel((0, 0)) for ref in record.images] for record in rows]


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    "fields", [{"conversations": TALK}, {"messages": MESSAGES}, PROMPT], ids=["conversations", "messages", "prompt"]
)
@pytest.mark.parametrize("is_list", [False, True], ids=["image", "images"])
def test_a_dataset_with_pictures(fields: dict[str, Any], is_list: bool) -> None:
    images = [picture(), picture("blue")]
    column = {"images": [[image] for image in images]} if is_list else {"image": images}
    dataset = datasets.Dataset.from_dict({"id": ["a", "b"], **column, **{name: [v, v] for name, v in fields.items()}})
    rows = load_rows(dataset)
    assert (len(rows), rows.n_rows, rows.location, rows.images_root) == (2, 2, "", None)
    assert [(record.id, record.turns, record.reason) for record in rows] == [("a", SAID, ""), ("b", SAID, "")]
    assert colours(rows) == [[RED], [BLUE]]
    assert [record.row for record in rows.records(1, 9)] == [1]
    assert isinstance(dataset[0]["images"][0] if is_list else dataset[0]["image"], Image.Image)


def test_a_chosen_part_of_a_dataset() -> None:
    dataset = datasets.Dataset.from_dict({"image": [picture(), picture("blue")], "conversations": [TALK, TALK]})
    keys = [record.key for record in load_rows(dataset)]
    chosen = dataset.select([1, 0]).with_format("torch")
    assert colours(load_rows(chosen)) == [[BLUE], [RED]]
    assert [record.key for record in load_rows(chosen)] == keys[::-1]
    assert load_rows(chosen).fingerprint != load_rows(dataset).fingerprint == load_rows(dataset).fingerprint


def test_a_row_has_the_same_key_as_in_a_file(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"image": [picture()], "conversations": [TALK]})
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    (there,), (here,) = FileRows(tmp_path / "x.parquet"), load_rows(dataset)
    assert (there.key, there.images) == (here.key, here.images)


def test_a_column_of_mixed_types(tmp_path: Path) -> None:
    """`datasets` stores such a column as JSON text; in a file too."""
    write_images(tmp_path, ["x.png", "y.png"])
    compare = [{"from": "human", "value": "<image>\n<image>\nWhich colours?"}, TALK[1]]
    rows = [{"image": "x.png", "conversations": TALK}, {"image": ["x.png", "y.png"], "conversations": compare}]
    write_lines(tmp_path / "rows.jsonl", rows)
    dataset = datasets.Dataset.from_json(str(tmp_path / "rows.jsonl"), cache_dir=tmp_path / "cache")
    assert dataset.features["image"] == datasets.Json()
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    for known in load_rows(dataset, tmp_path), FileRows(tmp_path / "x.parquet", tmp_path):
        assert [[str(ref.path) for ref in record.images] for record in known] == [["x.png"], ["x.png", "y.png"]]
    talks: list[Any] = [[{"by": "me"}, {"by": ["you"]}], []]
    nested = datasets.Dataset.from_dict({"talks": talks}, datasets.Features(talks=datasets.List(datasets.Json())))
    assert [row.value for row in ArrowRows(nested).rows()] == [{"talks": value} for value in talks]


def test_images_that_a_dataset_names(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/x.png"])
    given = {"image": [str(tmp_path / "a/x.png")], "conversations": [TALK]}
    known = datasets.Dataset.from_dict(given).cast_column("image", datasets.Image())
    assert colours(load_rows(known)) == [[RED]]  # `datasets` itself would open it
    plain = load_rows(datasets.Dataset.from_dict(given), tmp_path)
    with pytest.raises(DataError, match="outside the image folder"):
        colours(plain)
    assert colours(load_rows(datasets.Dataset.from_dict(given), allow_outside=True)) == [[RED]]
    below = datasets.Dataset.from_dict(given | {"image": ["a/x.png"]})
    assert colours(load_rows(below, tmp_path)) == [[RED]]
    assert [record.source for record in load_rows(below, tmp_path)] == ["a"]


def image_values(folder: Path) -> dict[str, Any]:
    write_images(folder, ["x.png"])
    data = encode_image()
    return {
        "picture": picture(),
        "bytes": data,
        "hub": {"bytes": data, "path": None},
        "named": {"bytes": None, "path": "x.png"},
        "path": "x.png",
    }


@pytest.mark.parametrize("name", ["picture", "bytes", "hub", "named", "path"])
def test_a_list_of_dicts(tmp_path: Path, name: str) -> None:
    image = image_values(tmp_path)[name]
    part = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Which colour?"}]}]
    given = [
        {"id": 1, "image": image, "conversations": TALK},
        {"id": 2, "images": (image,), "messages": MESSAGES},
        {"id": 3, "messages": part + MESSAGES[1:]},
    ]
    before = copy.copy(given)
    for row in given:
        rows = load_rows([row], tmp_path)
        (record,) = rows
        assert (record.turns, record.id, colours(rows)) == (SAID, str(row["id"]), [[RED]])
        assert rows.read_image_bytes(record.images[0]).startswith(b"\x89PNG")
    assert given == before


def test_rows_that_cannot_be_used_have_a_reason(tmp_path: Path) -> None:
    given = [
        {"image": picture(), "conversations": TALK},
        {"image": b"no image", "conversations": TALK},
        {"image": "none.png", "conversations": TALK},
        {"image": picture(), "conversations": TALK[:1]},
        {"image": 5, "conversations": TALK},
        "no object",
    ]
    rows = load_rows(given, tmp_path)
    codes = [record.reason_code for record in rows]
    assert codes == ["", "", "", "no_answer", "bad_image_reference", "wrong_type"]
    for row, code in ((1, ReasonCode.IMAGE_UNREADABLE), (2, ReasonCode.IMAGE_MISSING)):
        with pytest.raises(DataError) as caught:
            rows.load_images(next(rows.records(row, row + 1)).images)
        assert getattr(caught.value, "code", None) == code


def test_keys_and_fingerprints_are_of_the_content() -> None:
    def of(*images: Any) -> Rows:
        return load_rows([{"image": image, "conversations": TALK} for image in images])

    one, again, other = of(picture(), b"x"), of(picture(), b"x"), of(picture("blue"), b"x")
    assert [record.key for record in one] == [record.key for record in again] != [record.key for record in other]
    assert one.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("is_list", [True, False])
def test_in_another_process(is_list: bool) -> None:
    given = [{"image": picture("blue"), "conversations": TALK}]
    rows = load_rows(given if is_list else datasets.Dataset.from_list(given))
    again = pickle.loads(pickle.dumps(rows))
    assert colours(again) == [[BLUE]]
    assert [record.key for record in again] == [record.key for record in rows]
    assert again.fingerprint == rows.fingerprint
    (record,) = pickle.loads(pickle.dumps(list(rows)))
    assert record.turns == SAID


def test_what_is_read_as_a_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [make_row(0), make_row(1)])
    for given in (path, str(path), [path], (str(path),)):
        assert (type(rows := load_rows(given, limit=1)), rows.n_rows) == (FileRows, 1)
    assert load_rows(rows) is rows
    assert isinstance(load_rows([make_row(0)], format="llava", limit=5), MemoryRows)


@pytest.mark.parametrize("given", [5, None, b"x", {"a": 1}, {"train": [], "test": []}, iter([{}]), object()])
def test_what_is_no_data_says_what_is(given: Any) -> None:
    with pytest.raises(DataError, match=r"expected a path, .*datasets\.Dataset, a list of dicts"):
        load_rows(given)


def test_a_dict_of_splits_names_them() -> None:
    splits = datasets.DatasetDict(train=datasets.Dataset.from_dict({"a": [1]}))
    with pytest.raises(DataError, match="choose a split: train"):
        load_rows(splits)


def test_settings_that_rows_cannot_have() -> None:
    with pytest.raises(DataError, match="no rows"):
        load_rows([])
    with pytest.raises(SettingsError, match="limit=0"):
        load_rows([make_row(0)], limit=0)
    with pytest.raises(DataError, match=r"the data is in no known format .* have the keys a"):
        load_rows([{"a": 1}])


def test_references_are_equal_by_what_they_mean() -> None:
    image = picture()
    assert ImageRef(picture=image) == ImageRef(picture=image) != ImageRef(picture=picture())
    assert len({ImageRef("x"), ImageRef("x"), ImageRef("x", part=1), ImageRef("x", is_blank=True)}) == 3
    assert str(ImageRef("a/x.png")) == "a/x.png"
    assert [str(ref) for ref in (ImageRef(data=b"abc"), ImageRef(place=(3, 0)), ImageRef(picture=image))] == [
        "image of 3 bytes",
        "image 0 of row 3",
        "image of 8x6 pixels in memory",
    ]


def test_a_blank_image_is_painted_over_in_its_mean_colour() -> None:
    image = picture()
    image.paste((0, 0, 255), (0, 0, 4, 6))
    rows = load_rows([{"image": image, "conversations": TALK}])
    blank = rows.load_image(ImageRef(picture=image, is_blank=True))
    assert (blank.size, len(blank.getcolors() or ())) == ((8, 6), 1)


def test_files_and_lists_are_read_without_torch_and_datasets(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [make_row(0)])
    code = (
        "import sys\nfrom delta_attnmask.reading.rows import load_rows\n"
        f"load_rows({str(path)!r}); load_rows([{json.dumps(make_row(0))}])\n"
        "print(*{'torch', 'datasets', 'transformers', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_pictures_keep_their_pixels_whatever_their_mode() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 7).save(file, "PNG")
    opened = Image.open(file)
    rows = load_rows([{"image": opened, "conversations": TALK}])
    assert colours(rows) == [[(7, 7, 7)]]
    assert opened.mode == "L"
