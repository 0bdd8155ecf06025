"""Where rows stand: a JSON list, JSONL, parquet, arrow or a tar. Told by a file's first bytes. No torch here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from delta_attnmask.errors import DataError
from delta_attnmask.reading.rows import RawRow, open_input

_HEAD_BYTES = 512  # a tar's first header
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class Container(Protocol):
    """One file of rows. Can be pickled; opens what it needs when it is first asked.

    n_to_detect: how many rows are looked at to tell their format.
    """

    path: Path
    n_to_detect: int

    @property
    def kind(self) -> str:
        """What it is, for people."""

    @property
    def n_rows(self) -> int:
        """How many rows there are; DataError if the file is broken."""

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """The rows from `start` to `stop`, cheaply from anywhere; DataError if the file is broken there."""

    def read_embedded(self, reference: str) -> bytes | None:
        """The undecoded image that a row of this file holds; None if the reference isn't one to such an image.

        Raises RowError where there is no such image.
        """


def open_container(path: Path) -> Container:
    """The container of a file, by its content; DataError for what can't be read."""
    from delta_attnmask.reading.jsonfile import JsonFile

    with open_input(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        from delta_attnmask.reading.columns import ArrowFile, ArrowStream, ParquetFile  # they take 0.1 s to import

        for start, kind in ((b"PAR1", ParquetFile), (b"ARROW1", ArrowFile)):
            if head.startswith(start):
                return kind(path)
        return ArrowStream(path)
    if head[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        from delta_attnmask.reading.tars import TarFile

        return TarFile(path)
    for start, name in _PACKED.items():
        if head.startswith(start):
            raise DataError(f"{path} is packed with {name}, so rows can't be read from anywhere; unpack it first")
    return JsonFile(path)
