"""Progress without a terminal: lines that people and logs can read."""

import time

import pytest

from delta_attnmask.cli.progress import show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[0])
    return times


def test_lines_come_seldom_and_at_the_end(clock, capsys):
    with show_progress("scoring") as advance:
        for n_done in range(1, 41):
            clock[0] += 1
            advance(n_done, 40, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "scoring: 40/40 rows, 1.0 rows/s, 2 failed"
    assert lines[1].endswith("rows/s, 2 failed, 29 s left")
    assert len(lines) == 5


def test_the_rate_counts_from_when_the_work_began(clock, capsys):
    with show_progress("reading", since=90.0) as advance:
        advance(20, 20, 0)
    assert capsys.readouterr().err == "reading: 20/20 rows, 2.0 rows/s, 0 failed\n"
