"""Rows are taken as they are needed, and none is lost."""

from collections.abc import Iterator

from delta_attnmask.executing.filling import bundles, fill


def test_bundles_reach_their_size() -> None:
    assert list(bundles([1, 2, 3, 9, 1, 4, 0], int, 5)) == [[1, 2, 3], [9], [1, 4], [0]]
    assert list(bundles([7, 8], int, 5)) == [[7], [8]]
    assert list(bundles([], int, 5)) == []


def test_bundles_take_no_row_before_it_is_needed() -> None:
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(6):
            taken.append(row)
            yield row

    found = bundles(rows(), lambda row: 1, 2)
    assert not taken
    assert next(found) == [0, 1]
    assert taken == [0, 1]


def test_fill_stops_at_its_bytes_but_has_a_row_at_least() -> None:
    assert fill(range(10), lambda some: [-row for row in some], lambda row: 3, 7, 2) == [0, -1, -2, -3]
    assert fill(range(10), list, lambda row: 99, 1, 1) == [0]
    assert fill([], list, lambda row: 1, 9, 1) == []
