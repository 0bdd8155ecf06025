"""Which settings `score` ends up with, and where it ends before it scores."""

from pathlib import Path

import pytest

from delta_attnmask.cli import main


def call(*arguments: object) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return int(stopped.value.code or 0)


def test_an_empty_image_folder_ends_in_one_message(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    out = tmp_path / "run"
    given = ["--model", embedded / "model", "--data", embedded / "pool.json", "--images", tmp_path / "images"]
    assert call("score", *given, "--out", out, "--limit", 80) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "delta-attnmask: none of the 79 rows with an image that were tried can be scored; row 0: image "
    )
    assert "No such file" in last
    assert "--images" in last
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("scores/*"))
