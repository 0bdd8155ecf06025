"""Rows in memory: a `datasets.Dataset`, read undecoded, and a list of dicts. No torch here."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow, find_images, hash_values, is_picture, with_references
from delta_attnmask.reading.images import ImageLimits, read_image_file
from delta_attnmask.records import Fingerprint, ImageRef

_ROWS_AT_ONCE = 64
_ANYWHERE = ImageLimits(allow_outside=True)


class ListRows:
    """A list of dicts. References hold the rows' own bytes and pictures."""

    kind = "a list of rows"
    n_to_detect = 100

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    @property
    def n_rows(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> Fingerprint:
        keys = "\n".join(map(hash_values, self._rows))
        return Fingerprint(sha256(keys.encode()).hexdigest(), 0)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        for row in range(*slice(start, stop).indices(len(self._rows))):
            yield RawRow(row, 0, b"", with_references(self._rows[row], _refer), None, hash_values(self._rows[row]))

    def read_image(self, row: int, number: int) -> bytes:
        raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: the row holds its images itself")


def _refer(image: Any) -> ImageRef:
    return ImageRef(picture=image) if is_picture(image) else ImageRef(data=image)


class ArrowRows:
    """A `datasets.Dataset` as its Arrow table has it, so that no image is decoded, whatever its format and columns."""

    n_to_detect = 8
    kind = "a datasets.Dataset"

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.with_format("arrow")

    @property
    def n_rows(self) -> int:
        return len(self._dataset)

    @property
    def fingerprint(self) -> Fingerprint:
        """Of what `datasets` itself knows the rows by."""
        known = f"{self._dataset._fingerprint} {len(self._dataset)}"
        return Fingerprint(sha256(known.encode()).hexdigest(), 0)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        from delta_attnmask.reading.columns import make_row

        stop = self.n_rows if stop is None else min(stop, self.n_rows)
        for first in range(start, stop, _ROWS_AT_ONCE):
            for row, (value, error) in enumerate(self._values(first, min(first + _ROWS_AT_ONCE, stop)), first):
                yield make_row(row, value, error, _is_image)

    def _values(self, start: int, stop: int) -> Iterator[tuple[Any, RowError | None]]:
        from delta_attnmask.reading.columns import read_values

        for batch in self._dataset[start:stop].to_batches():
            yield from read_values(batch)

    def read_image(self, row: int, number: int) -> bytes:
        value, _ = next(self._values(row, row + 1))
        found = find_images(value, _is_image)[number]
        return found if isinstance(found, bytes) else read_image_file(found["path"], None, _ANYWHERE)


def _is_image(value: object) -> bool:
    """Bytes, or an `Image` that `datasets` itself would read from a file."""
    if not isinstance(value, dict) or value.keys() != {"bytes", "path"}:
        return isinstance(value, bytes)
    return value["bytes"] is None and isinstance(value["path"], str) and Path(value["path"]).is_absolute()
