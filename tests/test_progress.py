"""Rate and time left go by the rows of this start, and the total is shown at once."""

import io
import re
from collections.abc import Callable

import pytest

from delta_attnmask import progress
from delta_attnmask.progress import show_phases, show_progress


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still unless it is moved."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_lines_come_seldom_and_at_the_end(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("scoring") as advance:
        for n_done in range(1, 41):
            pass_time(1)
            advance(n_done, 40, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "scoring: 40/40 rows, 1.0 rows/s, 2 failed"
    assert lines[1].endswith("rows/s, 2 failed, 0:00:29 left")
    assert len(lines) == 5


def test_rows_of_an_earlier_start_make_no_rate(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("scoring") as advance:
        pass_time(50)  # the model is loaded
        advance(800, 1000, 0, 800)
        assert capsys.readouterr().err == "scoring: 800/1000 rows\n"
        pass_time(20)
        advance(840, 1000, 3, 800)
        assert capsys.readouterr().err == "scoring: 840/1000 rows, 2.0 rows/s, 3 failed, 0:01:20 left\n"
        pass_time(80)
        advance(1000, 1000, 3, 800)
        assert capsys.readouterr().err == "scoring: 1000/1000 rows, 2.0 rows/s, 3 failed\n"


def test_a_bar_shows_the_total_at_once_and_the_rate_of_this_start(
    pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with show_progress("scoring", 1000) as advance:
        pass_time(50)
        advance(800, 1000, 0, 800)
        pass_time(100)
        advance(900, 1000, 7, 800)
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.getvalue())
    assert "0/1000" in text
    assert re.search(r"900/1000 \S+ 1.0 rows/s, 7 failed, 0:01:40 left", text)


def test_steps_before_a_restart_make_no_rate(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_phases() as advance:
        advance("training", 800, 1000, 0)
        pass_time(20)
        advance("training", 840, 1000, 0)
    assert capsys.readouterr().err.splitlines()[-1] == "training: 840/1000 rows, 2.0 rows/s, 0:01:20 left"
