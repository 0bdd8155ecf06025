"""A JSON list or a JSONL file as a container of rows. No torch here."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

from delta_attnmask.reading.rows import Layout, Mark, RawRow, find_layout, iter_rows

_ROWS_PER_MARK = 64
_KINDS: dict[Layout, str] = {
    "list": "a JSON list",
    "lines": "JSONL",
    "annotations": "a JSON object of annotations",
}


class JsonFile:
    """Rows found by their byte offsets, of which every 64th is kept once they are counted."""

    n_to_detect = 100

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def layout(self) -> Layout:
        return find_layout(self.path)

    @property
    def kind(self) -> str:
        return _KINDS[self.layout]

    @property
    def n_rows(self) -> int:
        """Found by reading the file once; DataError if it is broken anywhere."""
        return self._n_rows_and_marks[0]

    @cached_property
    def _n_rows_and_marks(self) -> tuple[int, tuple[Mark, ...]]:
        n_rows, marks = 0, []
        for row in iter_rows(self.path):
            if row.row % _ROWS_PER_MARK == 0:
                marks.append(Mark(row.row, row.start))
            n_rows += 1
        return n_rows, tuple(marks)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """From the start nothing needs to be counted first."""
        if start == 0:
            yield from islice(iter_rows(self.path), stop)
            return
        n_rows, marks = self._n_rows_and_marks
        stop = n_rows if stop is None else min(stop, n_rows)
        if start >= stop:
            return
        mark = marks[start // _ROWS_PER_MARK]
        yield from islice(iter_rows(self.path, since=mark), start - mark.row, stop - mark.row)

    def read_embedded(self, reference: str) -> None:
        """JSON holds images only as `data:` URIs, which need no file."""
        return
