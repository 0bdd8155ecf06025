"""What holds rows: a JSON list, JSONL, parquet, arrow or a tar. Recognised by a file's first bytes. No torch here."""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from delta_attnmask.errors import DataError, RowError
from delta_attnmask.records import ImageRef

if TYPE_CHECKING:
    from delta_attnmask.reading.columns import Columns
    from delta_attnmask.reading.jsonfile import JsonFile
    from delta_attnmask.reading.tars import TarFile

# a file; each with its `path`, and the `endings` of such files' names
FileContainer: TypeAlias = "JsonFile | TarFile | Columns"
_HEAD_BYTES = 512  # a tar's first header
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class RawRow(NamedTuple):
    """One row as its container holds it.

    row: position among the rows, from 0; blank lines of a JSONL file don't count.
    start: byte offset of the row's first byte in the file, where it has one.
    raw: the row's bytes, without what surrounds them; empty if the row is longer than allowed, or has none of its own.
    value: the row as plain values, with an ImageRef for each image that it holds; None if `error` says why not.
    given_key: the key of a row without `raw`.
    """

    row: int
    start: int
    raw: bytes
    value: Any = None
    error: RowError | None = None
    given_key: str = ""

    @property
    def key(self) -> str:
        """Hex SHA-256 of the row's content."""
        return self.given_key or sha256(self.raw).hexdigest()


class Container(Protocol):
    """What holds rows: a file, or an object in memory. Can be pickled; opens what it needs when it is first asked.

    n_to_detect: how many rows are looked at to recognise their format.
    """

    n_to_detect: int

    @property
    def kind(self) -> str:
        """What it is, for people."""

    @property
    def n_rows(self) -> int:
        """How many rows there are; DataError if the file is broken."""

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """The rows from `start` to `stop`, cheaply from anywhere; DataError if the file is broken there."""

    def read_image(self, row: int, number: int) -> bytes:
        """The undecoded image that an ImageRef's `place` means; RowError where there is none."""


def open_container(path: Path) -> "FileContainer":
    """The container of a file, by its content; DataError for what can't be read."""
    from delta_attnmask.reading.jsonfile import JsonFile

    with open_input(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        from delta_attnmask.reading.columns import ArrowFile, ParquetFile  # they take 0.1 s to import

        return ParquetFile(path) if head.startswith(b"PAR1") else ArrowFile(path)
    if head[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        from delta_attnmask.reading.tars import TarFile

        return TarFile(path)
    for start, name in _PACKED.items():
        if head.startswith(start):
            raise DataError(f"{path} is compressed with {name}, so rows can't be read at random; decompress it first")
    return JsonFile(path)


def open_input(path: Path) -> BufferedReader:
    """Open a data file for reading; DataError unless it is a regular file that can be read."""
    try:
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "doesn't exist"
            raise DataError(f"data file {path} {problem}")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"data file {path} can't be read: {error.strerror}") from error


def show_bytes(data: bytes) -> str:
    """Bytes for a message, in quotes: as text where all of it is printable, else as hexadecimal digits."""
    text = data.decode("ascii", errors="replace")
    return f"'{text}'" if text.isascii() and text.isprintable() else f"the bytes '{data.hex(' ')}'"


def hash_values(value: Any) -> str:
    """The key of a row that is no text: SHA-256 of it as JSON with sorted keys, what JSON lacks by its content.

    So the same row has the same key in every file.
    """
    text = json.dumps(value, sort_keys=True, default=_canonical, ensure_ascii=False)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def _canonical(value: object) -> object:
    """Bytes and pictures by their hash, other mappings and sequences as JSON's, dates and decimals as text."""
    if isinstance(value, bytes):
        return {"sha256": sha256(value).hexdigest()}
    if isinstance(value, Mapping):
        return dict(value)
    if is_picture(value):
        return {"size": value.size, "mode": value.mode, "sha256": sha256(value.tobytes()).hexdigest()}  # type: ignore[attr-defined]
    return str(value)


def is_picture(value: object) -> bool:
    """Whether it is a PIL image; PIL isn't imported for that."""
    return any(f"{base.__module__}.{base.__name__}" == "PIL.Image.Image" for base in type(value).__mro__)


def is_image(value: object) -> bool:
    return isinstance(value, bytes) or is_picture(value)


def with_references(value: Any, refer: Callable[[Any], ImageRef], is_image: Callable[[object], bool] = is_image) -> Any:
    """The value as plain dicts and lists, with a reference in place of each image, in their order."""
    if is_image(value):
        return refer(value)
    if isinstance(value, Mapping):
        return {name: with_references(item, refer, is_image) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_references(item, refer, is_image) for item in value]
    return value


def find_images(value: Any, is_image: Callable[[object], bool] = is_image) -> list[Any]:
    """The images that `with_references` puts references for, in the same order."""
    found: list[Any] = []

    def refer(image: Any) -> ImageRef:
        found.append(image)
        return ImageRef()

    with_references(value, refer, is_image)
    return found
