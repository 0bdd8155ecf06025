"""The command line as it is called: what it prints, what it writes, how it exits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from delta_attnmask import __version__, cli
from delta_attnmask.cli.terminal import print_table, printable
from tests.exporting.test_native import make_run
from tests.reading.builders import make_row, write_images, write_list
from tests.reading.samples import llama_factory


def call(*arguments: object) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main([*map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [make_row(n, f"a/{n}.png") for n in range(5)] + [5, {"conversations": [{"from": "[red]\x1b[31m"}]}]
    write_list(tmp_path / "data.json", rows)
    write_images(tmp_path / "images", [f"a/{n}.png" for n in range(4)])
    return tmp_path


def test_check(folder, capsys):
    arguments = ("check", "--data", folder / "data.json", "--images", folder / "images")
    assert call(*arguments, "--json", folder / "check.json") == 1
    printed = capsys.readouterr()
    assert "3 of 7 rows failed (42.9%), more than the 5% of --max-failed" in printed.err
    found = json.loads((folder / "check.json").read_bytes())
    assert [(one["row"], one["reason_code"]) for one in found["failed"]] == [
        (4, "image_missing"),
        (5, "wrong_type"),
        (6, "unknown_role"),
    ]
    assert (found["n_failed"], found["duplicates"], found["unread_keys"]) == (3, [], {})
    out = printed.out
    assert "rows: 7" in out
    assert "failed: 3" in out
    assert "'a/4.png': No such file or directory" in out
    assert r"got '[red]\x1b[31m'" in out
    assert "\x1b" not in out
    assert call(*arguments, "--max-failed", "50%") == 0
    assert call(*arguments, "--limit", "4", "--max-failed", "0") == 0


def test_check_tells_faults_apart_and_how_to_fix_them(tmp_path, capsys):
    turns = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "Yes."}]
    rows = [
        make_row(0) | {"image": "a.png"},
        {"image": "a.png", "conversations": turns},
        make_row(1, "b.png"),
        make_row(2),
    ]
    write_list(tmp_path / "data.json", rows)
    assert call("check", "--data", tmp_path / "data.json") == 1
    out = capsys.readouterr().out
    assert "rows: 1 | first: 0 | reason of the first: 0 <image> for 1 image\n" in out
    assert "rows: 1 | first: 1 | reason of the first: 2 <image> for 1 image\n" in out
    assert "Fix: give the folder of the images with --images\n" in out
    assert "seconds" not in out


def test_check_says_in_a_line_what_one_file_is(folder, capsys):
    images = folder / "images"
    assert call("check", "--data", folder / "data.json", "--images", images) == 1
    line = f"{folder / 'data.json'}: a JSON list, read as llava, images {images}, 7 rows\n"
    assert capsys.readouterr().out.startswith(line)
    (folder / "more.json").write_bytes((folder / "data.json").read_bytes())
    assert call("check", "--data", folder / "data.json", folder / "more.json", "--images", images) == 1
    assert line.replace("data.json", "more.json") in capsys.readouterr().out


def test_check_without_images(folder, capsys):
    assert call("check", "--data", folder / "data.json", "--no-images") == 1
    assert "failed: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["", "hello", "[1, 2]", "[{}]", '[{"conversations": []}]', '[{"conversations": []}']
)
def test_check_of_an_unusable_file(tmp_path, capsys, content):
    (tmp_path / "data.json").write_text(content)
    assert call("check", "--data", tmp_path / "data.json") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_one_message_and_exit_code_2(tmp_path, capsys):
    assert call("check", "--data", tmp_path / "none\x1b[31m.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("delta-attnmask: data file ")
    assert "\x1b" not in error
    assert error.count("\n") == 1
    assert call("select", tmp_path, "--keep", "20%", "--out", tmp_path / "x") == 2
    assert "holds no run" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(capsys):
    assert call("select") == 2
    assert call("check", "--bogus") == 2
    assert call("bogus") == 2
    capsys.readouterr()


def test_select(tmp_path, capsys):
    data = write_list(tmp_path / "data.json", [make_row(n, task_name="[b]") for n in range(5)])
    make_run(tmp_path / "run", data)
    out = tmp_path / "kept.json"
    assert call("select", tmp_path / "run", "--keep", "50%", "--out", out, "--order", "score") == 0
    assert [row["id"] for row in json.loads(out.read_text(encoding="utf-8"))] == [4, 1]
    printed = capsys.readouterr().out
    assert "Kept 2 of 5 rows" in printed
    assert "source: [b] | kept: 2 | left: 3 | failed: 0" in printed
    assert call("select", tmp_path / "run", "--keep", "9", "--out", out) == 2
    assert call("select", tmp_path / "run", "--keep", "1", "--out", out, "--by", "n_rows") == 2
    assert call("select", tmp_path / "run", "--keep", "1", "--out", out, "--order", "random") == 2
    capsys.readouterr()


def test_ctrl_c(folder, monkeypatch, capsys):
    monkeypatch.setattr("delta_attnmask.cli.check.survey", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call("check", "--data", folder / "data.json") == 130
    assert "rerun the same command to resume" in capsys.readouterr().err


def test_a_reader_that_goes_away(folder):
    command = f"{sys.executable} -m delta_attnmask check --no-images --data {folder / 'data.json'} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


IMPORTS = """
import sys
from delta_attnmask import cli
for flag in ("--help", "--version"):
    try:
        cli.main([flag])
    except SystemExit as done:
        assert not done.code, done
print(sorted({"torch", "transformers", "pyarrow", "PIL"} & set(sys.modules)))
import delta_attnmask.cli.check, delta_attnmask.cli.select
print("torch" in sys.modules)
"""


def test_help_and_version_import_nothing_heavy_and_check_and_select_no_torch():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "False"]
    assert f"\n{__version__}\n" in done.stdout


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert call(command, "--help") == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_offers_no_negatives_but_those_that_say_something(capsys):
    for command in cli.app:
        if not command.startswith("-"):
            text = help_of(command, capsys)
            assert "--empty-" not in text, command
            assert {*re.findall(r"--no-[a-z-]+", text)} <= {"--no-images", "--no-image-swap", "--no-lora"}, command
    assert "--no-image-swap" in help_of("evaluate", capsys)


def test_help_of_score_names_every_score_and_says_whose_defaults_hold(capsys):
    from delta_attnmask.scoring.rivals import rival_names

    text = help_of("score", capsys)
    assert [name for name in rival_names() if name not in text] == []
    assert "each replaces the one from --settings" in text
    assert "`check --help` lists them" in text or "check --help lists them" in text


def test_commands_come_in_the_order_of_work(capsys):
    assert call("--help") == 0
    shown = re.findall(r"^│ ([a-z-]+)  ", capsys.readouterr().out, re.MULTILINE)
    wanted = ["check", "calibrate", "score", "select", "report"]
    assert [name for name in shown if name in wanted] == wanted
    assert not {*shown[: shown.index("report")]} - {*wanted, "run"}


def test_the_first_group_of_options_is_short(capsys):
    for command in ("score", "select", "train", "calibrate", "report"):
        assert call(command, "--help") == 0
        first = capsys.readouterr().out.partition("Parameters ─")[2].partition("╰─")[0]
        options = re.findall(r"^│ [* ]? *(--[a-z-]+)", first, re.MULTILINE)
        assert 3 <= len(options) <= 15, command
        assert command in {"select", "report"} or {"--model", "--data", "--out"} <= {*options}


def test_help_of_check_names_every_format(capsys):
    from delta_attnmask.reading.formats import NAMES

    text = help_of("check", capsys)
    assert [name for name in NAMES if name not in text] == []


def test_python_dash_m():
    command = [sys.executable, "-m", "delta_attnmask", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{__version__}\n"


def test_printable():
    assert printable("é漢 \x1b[2J\u202e\x9b\n\udcff") == "é漢 \\x1b[2J\\u202e\\x9b\\n\\udcff"


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("terminal")
def test_a_long_title_stays_whole(capsys):
    title = "/somewhere/" + "a folder/" * 10 + "data.json"
    print_table(title, ["source"], [("a",)])
    assert title in capsys.readouterr().out


@pytest.mark.usefixtures("terminal")
def test_a_table_on_a_terminal(capsys):
    print_table("[b]Sources", ["source", "rows"], [("[red]x[/red]", 1234), ("\x1b]0;title\x07", 2)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "1,234" in out
    assert "\x1b]0" not in out


def test_check_says_a_mapping_of_columns_once(tmp_path, capsys):
    assert call("check", "--data", llama_factory(tmp_path), "--no-images") == 0
    out = capsys.readouterr().out
    assert out.count("role_tag") == 1
    assert "read as llama-factory:" in out


def test_check_of_a_file_that_does_not_exist(tmp_path, capsys):
    assert call("check", "--data", tmp_path / "none.json") == 2
    assert capsys.readouterr().err == f"delta-attnmask: data file {tmp_path / 'none.json'} doesn't exist\n"
