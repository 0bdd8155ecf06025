"""No command replaces a file that it didn't write, and none its input, whatever name that has."""

import json
from pathlib import Path

import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.storage import claim_output
from tests.cli.test_commands import call
from tests.evaluating.folders import write_evaluation
from tests.exporting.test_native import make_run
from tests.reading.builders import make_row, write_list

THEIRS = '{"precious": true}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data.json with its run, two evaluations, and a foreign file of each ending."""
    make_run(tmp_path / "run", write_list(tmp_path / "data.json", [make_row(n) for n in range(5)]))
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, [[True], [False]], "xx")
    for ending in ("json", "html", "parquet", "tsv"):
        (tmp_path / f"theirs.{ending}").write_text(THEIRS)
    return tmp_path


def commands(folder: Path) -> dict[str, list[object]]:
    """Commands that write `theirs` with some ending; the option that names it comes last."""
    run, data = folder / "run", ["--data", folder / "data.json"]
    return {
        "select": ["select", run, "--keep", "2", "--rule", "top", "--out", "json"],
        "export": ["export", run, "--out", "json"],
        "export --scores": ["export", run, "--scores", "--out", "parquet"],
        "report": ["report", run, "-o", "html"],
        "worst": ["worst", run, "-o", "html"],
        "audit": ["audit", run, "--json", "json"],
        "compare": ["compare", folder / "a", folder / "b", "--json", "json"],
        "check": ["check", *data, "--json", "json"],
        "export-eval": ["export-eval", "--to", "vlmevalkit", *data, "--name", "theirs", "--out", ""],
        "estimate": ["estimate", "--model", folder / "none", *data, "--json", "json"],
        "inspect": ["inspect", run, "--row", "0", "-o", "html"],
        "attention": ["attention", folder / "none", folder / "none", *data, "-o", "html"],
        "attention --json": ["attention", folder / "none", folder / "none", *data, "--json", "json"],
    }


NAMES = list(commands(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_file_stays_as_it_is(folder, name, capsys):
    *words, ending = commands(folder)[name]
    out = folder / f"theirs.{ending}" if ending else folder
    assert call(*words, out) == 2
    assert "exists, and this tool didn't write it; choose another file, or replace it with --force" in (
        capsys.readouterr().err
    )
    assert {path.read_text() for path in folder.glob("theirs.*")} == {THEIRS}


@pytest.mark.parametrize("name", [name for name in NAMES if "export-eval" not in name])
def test_a_wrong_ending_is_refused_with_the_right_one(folder, name, capsys):
    *words, ending = commands(folder)[name]
    assert call(*words, folder / "new.csv") == 2
    assert f"expected a name that ends in .{ending}" in capsys.readouterr().err
    assert not (folder / "new.csv").exists()


@pytest.mark.parametrize("name", ["select", "export", "audit", "check"])
def test_the_data_is_never_replaced(folder, name, capsys, monkeypatch):
    *words, _ = commands(folder)[name]
    data = folder / "data.json"
    before = data.read_bytes()
    (folder / "soft.json").symlink_to(data)
    (folder / "hard.json").hardlink_to(data)
    monkeypatch.chdir(folder)
    for out in (data, "soft.json", "hard.json", "run/../data.json"):
        assert call(*words, out, "--force") == 2
        assert "is the data itself, which is never replaced" in capsys.readouterr().err
    assert data.read_bytes() == before
    manifest = (folder / "run" / "manifest.json").read_bytes()
    assert call("audit", folder / "run", "--json", folder / "run" / "manifest.json", "--force") == 2
    assert "belongs to what is read" in capsys.readouterr().err
    assert (folder / "run" / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("name", ["select", "report", "worst", "audit", "compare", "check"])
def test_own_files_are_written_anew_and_others_with_force(folder, name, capsys):
    *words, ending = commands(folder)[name]
    out = folder / f"ours.{ending}"
    assert call(*words, out) == 0
    first = out.read_bytes()
    assert call(*words, out) == 0
    assert call(*words, folder / f"theirs.{ending}", "--force") == 0
    assert len((folder / f"theirs.{ending}").read_bytes()) == len(first)
    if ending == "json" and name != "select":
        assert json.loads(first)["generator"].startswith("delta-attnmask ")
    capsys.readouterr()


def test_a_run_and_a_calibration_are_folders(folder, capsys):
    given = ["--model", folder / "none", "--data", folder / "data.json", "--out", folder / "theirs.json"]
    for command in ("score", "calibrate"):
        assert call(command, *given) == 2
        assert "theirs.json is a file; " in capsys.readouterr().err


def test_what_is_no_regular_file(tmp_path: Path):
    with pytest.raises(SettingsError, match="is no regular file"):
        claim_output(Path("/dev/null"), [""], force=True)
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="didn't write it"):
        claim_output(tmp_path / "link.json", [".json"])


def test_files_of_a_pattern_are_data_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "parts").mkdir()
    part = write_list(tmp_path / "parts" / "a.json", [make_row(n) for n in range(5)])
    make_run(tmp_path / "run", part)
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(part), str(tmp_path / "parts" / "*.json")))
    before = part.read_bytes()
    assert call("audit", tmp_path / "run", "--json", part, "--force") == 2
    assert "is the data itself" in capsys.readouterr().err
    assert part.read_bytes() == before


def test_the_demo_replaces_no_foreign_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pool.json").write_text(THEIRS)
    assert call("demo", "--export", tmp_path) == 2
    assert "pool.json isn't of the embedded data; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "pool.json").read_text() == THEIRS
