"""A data file as records: counted, fingerprinted, and read from any row on. No torch here."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.formats import Format, detect_format, find_format
from delta_attnmask.reading.images import ImageLimits, load_image
from delta_attnmask.reading.rows import Mark, iter_rows, open_input
from delta_attnmask.records import Fingerprint, Record

if TYPE_CHECKING:
    from PIL.Image import Image

_ROWS_PER_MARK = 64
_ROWS_TO_DETECT = 100


def fingerprint_file(path: Path) -> Fingerprint:
    """Hash a file of any size in bounded memory."""
    with open_input(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return Fingerprint(digest.hexdigest(), file.tell())


class Dataset:
    """The records of one file.

    images_root: the folder below which image paths are looked up; None if no image will be loaded.
    format: a name from FORMATS; None to recognise it by the content.
    limit: read only that many rows from the start.

    Raises DataError or SettingsError at once for a file, a folder or a format that can't be used. Can be pickled.
    """

    def __init__(
        self,
        path: str | Path,
        images_root: str | Path | None = None,
        *,
        format: str | None = None,
        limit: int | None = None,
        image_limits: ImageLimits = ImageLimits(),
    ) -> None:
        if limit is not None and limit < 1:
            raise SettingsError(f"limit={limit}: expected at least 1")
        self.path = Path(path).absolute()
        self.images_root = None if images_root is None else Path(images_root).absolute()
        self.limit = limit
        self.image_limits = image_limits
        if self.images_root is not None and not self.images_root.is_dir():
            raise DataError(f"image folder {self.images_root} is no directory")
        self.format_name = (find_format(format) if format else self._detect()).name

    @property
    def format(self) -> Format:
        return find_format(self.format_name)

    def _detect(self) -> Format:
        first = list(islice(iter_rows(self.path), _ROWS_TO_DETECT))
        if not first:
            raise DataError(f"{self.path} has no rows")
        return detect_format(first, self.path)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint_file(self.path)

    @cached_property
    def n_rows(self) -> int:
        """How many rows there are, found by reading the file once; DataError if it is broken anywhere."""
        return self._n_rows_and_marks[0]

    @cached_property
    def _n_rows_and_marks(self) -> tuple[int, tuple[Mark, ...]]:
        n_rows, marks = 0, []
        for row in iter_rows(self.path):
            if row.row % _ROWS_PER_MARK == 0:
                marks.append(Mark(row.row, row.start))
            n_rows += 1
        return min(n_rows, self.limit or n_rows), tuple(marks)

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Record]:
        """Every record in order, without counting them first."""
        return map(self.format.read, islice(iter_rows(self.path), self.limit))

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """The records of rows `start` to `stop`, found without reading what is before them."""
        n_rows, marks = self._n_rows_and_marks
        if start >= min(stop, n_rows):
            return
        for row in iter_rows(self.path, since=marks[start // _ROWS_PER_MARK]):
            if row.row >= min(stop, n_rows):
                return
            if row.row >= start:
                yield self.format.read(row)

    def load_image(self, reference: str) -> "Image":
        """Load one of a record's images; RowError with the reason if that isn't possible."""
        return load_image(reference, self.images_root, self.image_limits)
