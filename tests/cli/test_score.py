"""`score` as it is called: what it says where rows fail, and where nothing can come of a run."""

import json
from pathlib import Path

import pytest

from delta_attnmask import cli
from delta_attnmask.runs import RunFolder
from tests.reading.builders import make_row, write_images, write_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seventeen rows, three of them without an image."""
    rows = [make_row(n, f"a/{n}.png") if n % 5 else make_row(n) for n in range(1, 18)]
    write_list(tmp_path / "data.json", rows)
    write_images(tmp_path / "images", [f"a/{n}.png" for n in range(1, 18)])
    return tmp_path


def score(embedded: Path, folder: Path, *options: object) -> int:
    files = ["--model", embedded / "model", "--data", folder / "data.json", "--out", folder / "run"]
    settings = [] if "--settings" in options else ["--settings", "paper"]
    device = [] if "--device" in options else ["--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", *map(str, [*files, *settings, *device, *options])])
    return int(caught.value.code or 0)


def test_rows_that_fail_are_counted_with_their_reasons_and_the_fix(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "wrong").mkdir()
    assert score(embedded, folder, "--images", folder / "wrong") == 1
    captured = capsys.readouterr()
    assert "14 of 17 rows failed (82.4%), more than the 5% of --max-failed\n" in captured.err
    printed = captured.out
    assert "3 scored, 14 failed" in printed
    missing = "image 'a/1.png': No such file or directory"
    assert f"rows: 14 | first: 0, 1, 2, 3, 5 | reason of the first: {missing}\n" in printed
    assert "Fix: give the folder that the image paths are relative to with --images" in printed
    assert "Next: delta-attnmask select" in printed
    assert score(embedded, folder, "--images", folder / "images", "--max-failed", "90%") == 0
    assert "Failed rows aren't tried again" in capsys.readouterr().out


def test_a_run_without_one_good_row_is_refused_and_a_corrected_one_may_be_another(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(embedded, folder) == 2  # three rows have no image, but most lack the folder
    captured = capsys.readouterr()
    (message,) = [line for line in captured.err.splitlines() if line.startswith("delta-attnmask: ")]
    assert "most rows of the first unit can't be scored; 14 like this: image 'a/1.png': no image folder was" in message
    assert message.endswith("give the folder of the images with --images")
    assert "Next" not in captured.out
    assert not (folder / "run" / "manifest.json").exists()
    assert score(embedded, folder, "--images", folder / "images", "--fraction", "0.3", "--limit", "9") == 0
    assert "9 scored, 0 failed" in capsys.readouterr().out
    assert set(RunFolder.open(folder / "run").read_scores()["status"].to_pylist()) == {"ok"}


def test_an_image_folder_that_is_forgotten_at_a_later_start_fails_no_row(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", folder / "images", "--unit-rows", "5"]
    assert score(embedded, folder, *options) == 0
    (folder / "run" / "scores" / "unit-00001.parquet").unlink()
    assert score(embedded, folder, *options[2:]) == 2
    assert "give the folder of the images with --images" in capsys.readouterr().err
    assert score(embedded, folder, *options) == 0
    assert "17 scored, 0 failed" in capsys.readouterr().out


def test_a_first_unit_of_bad_rows_alone_ends_no_run(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((folder / "data.json").read_text())
    write_list(folder / "data.json", [5, 6, 7, 8, *rows])
    assert score(embedded, folder, "--images", folder / "images", "--unit-rows", "2") == 1
    assert "17 scored, 4 failed" in capsys.readouterr().out


def test_a_shard_counts_its_own_rows(embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong").mkdir()
    shards = ["--images", folder / "wrong", "--unit-rows", "5", "--shard"]
    assert score(embedded, folder, *shards, "1/2") == 1
    assert "shard 1/2 is done, 1 scored, 6 failed" in capsys.readouterr().out
    assert score(embedded, folder, *shards, "0/2") == 1
    assert "shard 0/2 is done, 2 scored, 8 failed" in capsys.readouterr().out


def test_a_shard_that_owns_no_unit_is_done(embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(embedded, folder, "--images", folder / "images", "--unit-rows", "5", "--shard", "5/64") == 0
    printed = capsys.readouterr().out
    assert "no unit of rows falls to shard 5/64" in printed
    assert f"Next: delta-attnmask merge {folder / 'run'}, after all shards" in printed


def test_a_run_without_one_good_row_is_exit_code_2(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(embedded, folder, "--settings", "relative") == 2
    assert "most rows of the first unit can't be scored; 14 like this: image " in (error := capsys.readouterr().err)
    assert error.endswith("give the folder of the images with --images\n")
    rows = json.loads((folder / "data.json").read_text())
    write_list(folder / "data.json", [row for row in rows if row.get("image")])
    (folder / "wrong").mkdir()
    assert score(embedded, folder, "--settings", "relative", "--images", folder / "wrong") == 2
    assert "no row of the first unit could be scored" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_one_message(
    embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    assert score(embedded, folder, "--device", device) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("data: ")]
    assert message.startswith(f"delta-attnmask: device={device!r}: ")
    assert "possible here: auto, cpu" in message
    assert not (folder / "run").exists()


@pytest.mark.parametrize("option", ["--batch-tokens", "--limit", "--unit-rows", "--actors"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_numbers_below_one_are_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert score(folder / "no model is looked for", folder, option, value) == 2
    name = option.removeprefix("--").replace("-", "_")
    assert capsys.readouterr().err == f"delta-attnmask: {name}={value}: expected at least 1\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["estimate", "--rows", "0", "--batch-tokens", "-1"], "rows=0: expected at least 1; batch_tokens=-1: expected"),
        (["calibrate", "--out", "x", "--rows", "-1"], "rows=-1: expected at least 1"),
        (["train", "--out", "x", "--workers", "-1"], "workers=-1: expected 0 or more"),
    ],
)
def test_other_commands_refuse_them_too(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--model", "no/model", "--data", str(folder / "data.json")])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
