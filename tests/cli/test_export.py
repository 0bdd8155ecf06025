"""`check` shows what it took the data for; `select` and `export` write what was asked, or say why not."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from delta_attnmask.reading.rows import FileRows
from tests.cli.test_commands import call
from tests.exporting.runs import score_all
from tests.reading import samples
from tests.reading.builders import make_row, write_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mixture of two formats with its run, and the selection of one row of each."""
    samples.write_image(tmp_path / "images" / "coco" / "x.png")
    samples.llava(tmp_path)
    samples.parquet(tmp_path)
    entries = [{"name": "one", "data": "llava_v1_5_mix665k.json", "weight": 2}, {"name": "two", "data": "hub"}]
    (tmp_path / "mix.json").write_text(json.dumps({"sources": entries}))
    score_all(FileRows(tmp_path / "mix.json", tmp_path / "images"), tmp_path / "run")
    return tmp_path


def test_check_shows_every_file_and_the_first_row_of_each_format(folder, capsys):
    assert call("check", "--data", folder / "mix.json", "--images", folder / "images", "--max-failed", "0") == 0
    out = capsys.readouterr().out
    images = folder / "images"
    assert f"665k.json: a JSON list, read as llava, source one, weight 2.0, images {images}, 2 rows\n" in out
    assert f"parquet: parquet, read as llava, source two, images {images}, 2 rows\n" in out
    assert "row 0\n  user: [image]What is it?\n  assistant: A bear.\n" in out


def test_check_of_several_files(folder, capsys):
    files = (samples.messages(folder), samples.trl(folder))
    assert call("check", "--data", *files, "--images", folder / "images") == 0
    out = capsys.readouterr().out
    assert ": JSONL, read as messages, " in out
    assert out.count("row 0\n  user: ") == 2
    write_list(folder / "both.json", [make_row(0, messages=[])])
    assert call("check", "--data", folder / "both.json") == 2
    assert "could be llava (1 of the first 1 rows) or messages (1); say which with --format" in capsys.readouterr().err
    assert call("check", "--data", folder / "both.json", "--format", "llava") == 0
    capsys.readouterr()


def test_select_in_the_own_formats(folder, capsys):
    out = folder / "kept"
    assert call("select", folder / "run", "--keep", "50%", "--rule", "top", "--out", out) == 0
    assert [record.row for record in FileRows(out / "data" if (out / "data").exists() else out / "mixture.json")]
    assert f"Wrote {out} and {out}.selection.json" in capsys.readouterr().out


def test_select_hands_a_rule_its_options(folder, capsys):
    out = folder / "kept"
    assert call("select", folder / "run", "--keep", "1", "--rule", "band", "--skip-top", "50%", "--out", out) == 0
    note = json.loads((folder / "kept.selection.json").read_text())
    assert (note["rule"], note["options"], note["n_skipped"]) == ("band", {"skip_top": 0.5}, 2)
    (left_out,) = note["sources_left_out"]
    assert f"WARNING: no row is kept of these sources: {left_out}" in capsys.readouterr().out
    assert call("select", folder / "run", "--keep", "1", "--rule", "top", "--skip-top", "50%", "--out", out) == 2
    assert "skip_top: the rule top doesn't take it; use the rule band or quota" in capsys.readouterr().err


def test_select_for_a_trainer(folder, capsys):
    out = folder / "kept.json"
    assert call("select", folder / "run", "--keep", "3", "--rule", "top", "--to", "llama-factory", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "llamafactory-cli train" in printed
    assert len(json.loads(out.read_bytes())) == 3
    assert json.loads((folder / "dataset_info.json").read_bytes())["kept"]["file_name"] == "kept.json"


def test_export_a_selection_and_everything(folder, capsys):
    kept = folder / "kept.json"
    assert call("select", folder / "run", "--keep", "2", "--rule", "top", "--to", "llava", "--out", kept) == 0
    arguments = ("export", folder / "run", "--to", "ms-swift")
    assert call(*arguments, "--selection", kept, "--order", "score", "--out", folder / "a.jsonl") == 0
    assert call(*arguments, "--out", folder / "b.jsonl") == 0
    printed = capsys.readouterr().out
    assert "Wrote 2 rows to" in printed
    assert f"For the trainer: ROOT_IMAGE_DIR={folder / 'images'} swift sft" in printed
    assert [record.id for record in FileRows(folder / "a.jsonl")] == ["b", "a"]
    assert len(FileRows(folder / "b.jsonl")) == 4


def test_export_with_scores(folder, capsys):
    assert call("export", folder / "run", "--scores", "--out", folder / "scored.parquet") == 0
    table = pq.read_table(folder / "scored.parquet")
    assert table["score_delta"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    assert table["source"].to_pylist() == ["one", "one", "two", "two"]
    assert call("export", folder / "run", "--scores", "--to", "trl", "--out", folder / "x.parquet") == 2
    assert "every row in the input's order" in capsys.readouterr().err


def test_what_cannot_be_exported_is_one_message(folder, capsys):
    for arguments, message in (
        (("--to", "trl", "--out", folder / "x.json"), "ends in .parquet"),
        (
            ("--to", "trl", "--out", folder / "x.parquet", "--data", folder / "llava_v1_5_mix665k.json"),
            "is not the file that was scored",
        ),
        (("--order", "score", "--out", folder / "x"), "--selection"),
        (("--to", "llava", "--out", folder / "x.json", "--images", folder / "none"), "isn't a directory"),
    ):
        assert call("export", folder / "run", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
