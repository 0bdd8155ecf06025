"""What commands say of the data's format before they begin."""

from pathlib import Path

import pytest

from delta_attnmask import cli
from delta_attnmask.cli.terminal import print_data
from delta_attnmask.reading.rows import FileRows
from tests.reading.builders import make_row, write_images, write_lines, write_list

SHOWN = ["row 0 is user: [image]Which number? | assistant: Número 0. | images: a/0.png"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", ["a/0.png"])
    return write_list(tmp_path / "data.json", [make_row(0, "a/0.png")])


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("command", "options"),
    [("score", ["--out", "run"]), ("calibrate", ["--out", "cal"]), ("estimate", []), ("train", ["--out", "trained"])],
)
def test_commands_print_it_before_they_load_a_model(data, capsys, command, options):
    folder = data.parent
    options = [str(folder / option) if option[0] != "-" else option for option in options]
    given = ["--model", str(folder / "none"), "--data", str(data), "--images", str(folder / "images")]
    with pytest.raises(SystemExit) as caught:
        cli.main([command, *given, *options])
    assert caught.value.code == 2
    assert printed(capsys) == [f"{data}: a JSON list, read as llava", *SHOWN]


def test_rows_are_shown_once_for_each_format(tmp_path, data, capsys):
    messages = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
    other = write_lines(tmp_path / "other.jsonl", [{"messages": messages * 2}])
    again = write_list(tmp_path / "again.json", [make_row(1)])
    print_data(FileRows([data, other, again], tmp_path / "images"))
    assert printed(capsys) == [
        f"{data}: a JSON list, read as llava",
        *SHOWN,
        f"{other}: JSONL, read as messages",
        "row 0 is user: Hi? | assistant: Ho. | 2 more | images: none",
        f"{again}: a JSON list, read as llava",
    ]


def test_a_faulty_row_is_passed_over(tmp_path, capsys):
    print_data(FileRows(write_list(tmp_path / "data.json", [5, make_row(1), make_row(2)])))
    assert printed(capsys)[1].startswith("row 1 is user: Which number?")


def test_nothing_but_faulty_rows(tmp_path, capsys):
    print_data(FileRows(write_list(tmp_path / "data.json", [{"conversations": []}])))
    assert printed(capsys)[1].startswith("row 0 can't be used: ")


def test_what_rows_say_is_printable_and_short(tmp_path, capsys):
    row = make_row(1) | {"conversations": [{"from": "human", "value": "\x1b[31m\n" + "x" * 9000}]}
    row["conversations"].append({"from": "gpt", "value": "Yes."})
    print_data(FileRows(write_list(tmp_path / "data.json", [row])))
    (_, line) = printed(capsys)
    assert r"\x1b[31m\n" in line
    assert len(line) < 250


def test_many_files(tmp_path, capsys):
    for number in range(23):
        write_list(tmp_path / f"{number:02}.json", [make_row(number)])
    print_data(FileRows(str(tmp_path / "*.json")))
    lines = printed(capsys)
    assert len(lines) == 22
    assert lines[-1] == "and 3 more files, read as llava"
