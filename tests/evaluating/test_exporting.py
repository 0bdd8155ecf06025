"""Exports for other harnesses: what they read, and that they measure as `evaluate` does."""

import base64
import csv
import importlib.util
import json
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageChops

from delta_attnmask import DataError, SettingsError
from delta_attnmask.cli.export_eval import export_eval
from delta_attnmask.cli.options import DataOptions
from delta_attnmask.evaluating.measures import normalise
from delta_attnmask.reading.rows import FileRows

Line = dict[str, Any]


@pytest.fixture
def rows() -> list[Line]:
    def turns(*texts: str) -> list[Line]:
        return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]

    return [
        {"source": "a", "image": "red.png", "conversations": turns("<image>\nWhich\tcolour?", "Red.", "Sure?", "yes")},
        {"source": "b", "image": ["red.png", "blue.jpg"], "conversations": turns("<image> or <image>?", 'The "first"')},
        {"source": "b", "conversations": turns("1 + 1?", "two")},
        {"source": "b", "image": "none.png", "conversations": turns("<image>\nWhat?", "x")},
    ]


@pytest.fixture
def folder(tmp_path: Path, rows: list[Line]) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 20), "red").save(tmp_path / "images" / "red.png")
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "images" / "blue.jpg")
    (tmp_path / "test.json").write_text(json.dumps(rows))
    return tmp_path


def rows_of(folder: Path, name: str = "test.json") -> DataOptions:
    return DataOptions(data=folder / name, images=folder / "images")


def load_task(path: Path) -> ModuleType:
    """The exported utils.py, as lmms-eval loads it: without this package."""
    spec = importlib.util.spec_from_file_location("exported_task", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lmms_eval_gets_whole_conversations_with_their_images(folder: Path) -> None:
    out = folder / "out"
    export_eval(to="lmms-eval", rows=rows_of(folder), out=out, name="mine")
    lines = pq.read_table(out / "mine.parquet").to_pylist()
    assert [(line["row"], line["turn"], line["answer"]) for line in lines] == [
        (0, 0, "Red."),
        (0, 1, "yes"),
        (1, 0, 'The "first"'),
        (2, 0, "two"),
    ]
    task = load_task(out / "utils.py")
    messages = task.doc_to_messages(lines[1])
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    image = messages[0]["content"][0]["url"]
    assert ImageChops.difference(image, Image.new("RGB", (40, 20), "red")).getbbox() is None
    assert messages[1]["content"] == [{"type": "text", "text": "Red."}]
    assert [part["type"] for part in task.doc_to_messages(lines[2])[0]["content"]] == ["image", "text", "image", "text"]
    assert len(task.doc_to_visual(lines[2])) == 2
    assert task.doc_to_text(lines[1]) == "Which\tcolour?\nRed.\nSure?"
    assert task.doc_to_visual(lines[3]) == []
    assert "delta_attnmask" not in {name.partition(".")[0] for name in vars(task)}
    assert "import delta_attnmask" not in (out / "utils.py").read_text()
    assert "from delta_attnmask" not in (out / "utils.py").read_text()


def test_the_exported_measures_are_those_of_evaluate(folder: Path) -> None:
    export_eval(to="lmms-eval", rows=rows_of(folder), out=folder / "out", name="mine")
    task = load_task(folder / "out" / "utils.py")
    lines = pq.read_table(folder / "out" / "mine.parquet").to_pylist()
    given = ["red", "yes", "The first", " 2 "]
    results = [task.process_results(line, [text]) for line, text in zip(lines, given, strict=True)]
    assert [result["exact"]["right"] for result in results] == [0.0, 1.0, 0.0, 0.0]
    expected = [normalise(text) == normalise(line["answer"]) for line, text in zip(lines, given, strict=True)]
    assert [result["normalised"]["right"] for result in results] == expected == [True, True, True, True]
    assert task.pooled([result["exact"] for result in results]) == 0.25
    assert task.mean_over_sources([result["exact_by_source"] for result in results]) == 0.25
    text = (folder / "out" / "mine.yaml").read_text()
    named = [line.split("utils.")[1] for line in text.splitlines() if "!function" in line]
    assert all(callable(getattr(task, name)) for name in named)


def test_vlmevalkit_gets_a_table_of_first_questions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    export_eval(to="vlmevalkit", rows=rows_of(folder), out=out, name="mine")
    csv.field_size_limit(sys.maxsize)
    with (out / "mine.tsv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    assert [(line["index"], line["question"], line["answer"], line["category"]) for line in lines] == [
        ("0", "Which\tcolour?", "Red.", "a"),
        ("1", "or ?", 'The "first"', "b"),
    ]
    image = Image.open(BytesIO(base64.b64decode(lines[0]["image"])))
    assert image.size == (40, 20)
    assert len(json.loads(lines[1]["image"])) == 2
    printed = capsys.readouterr().out
    assert "2 rows are left out" in printed
    assert "the row has no image" in printed
    assert "No such file" in printed


def test_vlmevalkit_gets_no_question_whose_image_comes_later(
    folder: Path, rows: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("Which colour?", "Which of them?", "<image>\nThis one.", "Red.")
    late = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(words)]
    (folder / "late.json").write_text(json.dumps([{"image": "red.png", "conversations": late}, rows[0]]))
    out = folder / "out"
    export_eval(to="vlmevalkit", rows=rows_of(folder, "late.json"), out=out, name="mine")
    lines = (out / "mine.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == ["1"]
    assert "no image comes before the row's first answer" in capsys.readouterr().out


def test_what_cannot_be_exported(folder: Path) -> None:
    with pytest.raises(SettingsError, match="letters, digits"):
        export_eval(to="lmms-eval", rows=DataOptions(data=folder / "test.json"), out=folder / "out", name="../up")
    with pytest.raises(DataError, match="no row can be exported"):
        export_eval(to="vlmevalkit", rows=DataOptions(data=folder / "test.json"), out=folder / "out")
    assert not list((folder / "out").glob("*"))
    assert FileRows(folder / "test.json").n_rows == 4


def test_rows_without_images_can_be_left_out(folder: Path) -> None:
    out = folder / "out"
    export_eval(to="lmms-eval", rows=rows_of(folder), out=out, name="mine", with_images_only=True)
    assert pq.read_table(out / "mine.parquet")["row"].to_pylist() == [0, 0, 1]
