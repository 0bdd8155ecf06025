"""Rows are taken as they are needed, and none is lost."""

from delta_attnmask.executing.filling import fill


def test_fill_stops_at_its_bytes_but_has_a_row_at_least() -> None:
    assert fill(range(10), lambda some: [-row for row in some], lambda row: 3, 7, 2) == [0, -1, -2, -3]
    assert fill(range(10), list, lambda row: 99, 1, 1) == [0]
    assert fill([], list, lambda row: 1, 9, 1) == []
