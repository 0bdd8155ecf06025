"""`delta-attnmask inspect` from end to end."""

from pathlib import Path

import pytest

from delta_attnmask.cli import main
from tests.reporting.runs import write_data, write_run


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *arguments])
    return int(stop.value.code or 0)


def test_writes_a_page(embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    source = [
        "--model",
        str(embedded / "model"),
        "--data",
        str(embedded / "pool.json"),
        "--images",
        str(embedded / "images"),
    ]
    assert run(*source, "--row", "3", "pool-02400", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "row 3 (pool-00003): loss" in printed
    assert "row 2400 (pool-02400): loss" in printed
    html = out.read_text()
    assert html.count('<section class="inspection"') == 2
    assert "block −4" in html, "the preset relative"
    for unknown in ("no such id", "99999", "-1"):
        assert run(*source, f"--row={unknown}", "-o", str(out)) == 2
        assert "rows 0 to 2406, and none of them has this id" in capsys.readouterr().err


def test_asks_for_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--row", "1") == 2
    assert "inspect RUN" in capsys.readouterr().err
    assert run("--model", "a", "--data", "b") == 2
    assert "--row" in capsys.readouterr().err


def test_a_run_shows_only_the_data_that_it_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = write_run(tmp_path / "run", write_data(tmp_path / "data", 3), [1.0, 2.0, 3.0])
    other = write_data(tmp_path / "other", 4)
    assert run(str(scored.path), "--row", "1", "--data", str(other), "-o", str(tmp_path / "page.html")) == 2
    assert "is not the file that was scored" in capsys.readouterr().err
