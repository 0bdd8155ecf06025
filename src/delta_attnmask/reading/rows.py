"""Rows as records: counted, fingerprinted, and read from any one on, from files or from memory. No torch here."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.locations import FileStore, as_path, as_url
from delta_attnmask.reading.containers import Container, FileContainer, open_container, open_input
from delta_attnmask.reading.conversation import Format
from delta_attnmask.reading.formats import choose_format, read_record
from delta_attnmask.reading.images import (
    ImageLimits,
    decode_image,
    encode_picture,
    iter_images,
    prepare_image,
    read_image_file,
)
from delta_attnmask.reading.inputs import Source, find_sources
from delta_attnmask.records import Fingerprint, ImageRef, Record

if TYPE_CHECKING:
    from PIL.Image import Image

ImagesRoot = Path | FileStore | None


@dataclass(frozen=True)
class Place:
    """Where the data is now, if it has moved, and what its images may be."""

    data: str | Path | None = None
    images: str | Path | None = None
    image_limits: ImageLimits = ImageLimits()


@dataclass(frozen=True)
class RowsPart:
    """Some of the rows: what holds them, how they are read, and where their images are.

    name: the source of all its rows; empty where the rows say it. weight: see `Source`.
    """

    container: Container
    format: Format
    images_root: ImagesRoot
    name: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class FilePart(RowsPart):
    """One file of a data set."""

    container: FileContainer

    @property
    def path(self) -> Path:
        return self.container.path


class Rows(ABC):
    """Rows as the pipeline needs them; see `load_rows`. Can be pickled.

    location: where the data can be opened again, see `find_sources`; empty for rows in memory. name: for people.
    images_root: the folder below which image paths are looked up; None if no image will be loaded, or the data holds
        them, or a mixture names a folder for each source.
    limit: read only that many rows from the start. parts: what the rows come from, in order.
    columns: of the data, whose values records keep.
    """

    location: str
    name: str
    parts: Sequence[RowsPart]

    def __init__(
        self, images_root: str | Path | None, limit: int | None, image_limits: ImageLimits, columns: Sequence[str] = ()
    ) -> None:
        if limit is not None and limit < 1:
            raise SettingsError(f"limit={limit}: expected at least 1")
        self.images_root = None if images_root is None else find_folder(images_root)
        self.limit, self.image_limits, self.columns = limit, image_limits, tuple(columns)

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Which rows these are, `limit` left aside."""

    @property
    def format_name(self) -> str:
        """The format with its options, or those of all parts as a JSON list; `format` takes either."""
        specs = [part.format.spec for part in self.parts]
        return specs[0] if len(set(specs)) == 1 else json.dumps(specs, ensure_ascii=False)

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each part, and one past the last row, `limit` left aside."""
        return [0, *accumulate(part.container.n_rows for part in self.parts)]

    def count_rows(self) -> list[int]:
        """How many rows each part gives, `limit` applied."""
        return [stop - start for start, stop in pairwise(min(row, self.n_rows) for row in self.starts)]

    @property
    def n_rows(self) -> int:
        """How many rows there are, found by reading the files once; DataError if one is broken anywhere."""
        return min(self.starts[-1], self.limit or self.starts[-1])

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Record]:
        return self.records(0, self.n_rows)

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """The records of rows `start` to `stop`, found without reading what is before them."""
        stop = min(stop, self.n_rows)
        number = bisect_right(self.starts, start) - 1
        while start < stop:
            part, first, end = self.parts[number], self.starts[number], self.starts[number + 1]
            for row in part.container.rows(start - first, min(stop, end) - first):
                record = read_record(part.format, row, self.columns)
                yield self._place(record, number) if number or part.name else record
            start, number = end, number + 1

    def subset(self, rows: Sequence[int]) -> "Rows":
        """Some of the rows, numbered anew from 0; they are read from these when they are needed."""
        return RowSubset(self, rows)

    def _require_columns(self) -> None:
        """Raise SettingsError for a column that none of the first rows has."""
        parts = [islice(part.container.rows(), part.container.n_to_detect) for part in self.parts if self.columns]
        keys = {str(key) for rows in parts for row in rows if isinstance(row.value, dict) for key in row.value}
        if missing := [name for name in self.columns if name not in keys]:
            known = ", ".join(sorted(keys))
            raise SettingsError(f"column={missing[0]!r}: the first rows have no such key; they have {known}")

    def _place(self, record: Record, number: int) -> Record:
        """The record as one of all rows: its row, its source, and whose its images are."""
        home = self._homes[number]
        images = tuple(replace(ref, part=number if ref.place else home) for ref in record.images)
        source = self.parts[number].name or record.source
        return replace(record, row=self.starts[number] + record.row, source=source, images=images)

    @cached_property
    def _homes(self) -> list[int]:
        """For each part the first with the same image folder, so that one file is one reference."""
        roots = [part.images_root for part in self.parts]
        return [roots.index(root) for root in roots]

    def part_of(self, ref: ImageRef) -> RowsPart:
        """The part that an image belongs to."""
        return self.parts[ref.part]

    def load_image(self, ref: ImageRef) -> "Image":
        """Load one of a record's images; RowError with the reason if that isn't possible."""
        if ref.picture is not None:
            image = prepare_image(ref.picture, self.image_limits)
        else:
            image = decode_image(self.read_image_bytes(ref), self.image_limits)
        return image.resize((1, 1)).resize(image.size) if ref.is_blank else image

    def load_images(self, refs: Sequence[ImageRef]) -> "list[Image]":
        """Load a record's images; RowError also where together they hold more pixels than a row may."""
        return list(iter_images(refs, self.load_image, self.image_limits))

    def read_image_bytes(self, ref: ImageRef) -> bytes:
        """The undecoded bytes of one of a record's images; of a picture in memory those of a PNG."""
        if ref.picture is not None:
            return encode_picture(ref.picture)
        if ref.data is None and ref.place is None:
            return read_image_file(ref.path, self.part_of(ref).images_root, self.image_limits)
        data = self.part_of(ref).container.read_image(*ref.place) if ref.place else ref.data or b""
        if len(data) > self.image_limits.max_bytes:
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, f"{ref}: more than {self.image_limits.max_bytes} bytes")
        return data


class FileRows(Rows):
    """The rows of one file, several, a pattern, a folder, or a mixture file.

    location: see `find_sources`.
    format: `NAME` or `NAME:OPTION`, see FORMATS, or a JSON list of one for each file; None to recognise it.

    Raises DataError or SettingsError at once for a file, a folder or a format that can't be used.
    """

    parts: Sequence[FilePart]

    def __init__(
        self,
        location: str | Path | Sequence[str | Path],
        images_root: str | Path | None = None,
        *,
        format: str | None = None,
        limit: int | None = None,
        image_limits: ImageLimits = ImageLimits(),
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__(images_root, limit, image_limits, columns)
        self.location, sources = find_sources(location)
        self.name = self.location
        formats = _split_formats(format, len(sources))
        self.parts = [self._open(source, wanted) for source, wanted in zip(sources, formats, strict=True)]
        self._require_columns()

    def _open(self, source: Source, format: str | None) -> FilePart:
        container = open_container(source.path)
        chosen = _find_format(container, source.format or format, source.path, str(source.path))
        images = self.images_root if source.images is None else find_folder(source.images)
        return FilePart(container, chosen, images, source.name, source.weight)

    @property
    def path(self) -> Path:
        """The location as a path, which opens the same data again; of several files it says which, but names none.

        For a URL it is the copy on this machine.
        """
        return Path(self.location) if as_url(self.location) is None else self.parts[0].path

    @property
    def inputs(self) -> list[Path]:
        """What is read, and must never be written to: the files, and what names them."""
        return [self.path, *(part.path for part in self.parts)]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the file, or of the parts' files in their order."""
        found = [fingerprint_file(part.path) for part in self.parts]
        if len(found) == 1:
            return found[0]
        lines = "".join(f"{one.sha256} {one.n_bytes}\n" for one in found)
        return Fingerprint(hashlib.sha256(lines.encode()).hexdigest(), sum(one.n_bytes for one in found))


class MemoryRows(Rows):
    """Rows in memory: a `datasets.Dataset` or a list of dicts. Nothing in it is changed."""

    location = ""

    def __init__(
        self,
        rows: Any,
        images_root: str | Path | None = None,
        *,
        format: str | None = None,
        limit: int | None = None,
        image_limits: ImageLimits = ImageLimits(),
        columns: Sequence[str] = (),
    ) -> None:
        from delta_attnmask.reading.memory import ArrowRows, ListRows

        super().__init__(images_root, limit, image_limits, columns)
        self._container = ArrowRows(rows) if _is_dataset(rows) else ListRows(rows)
        self.name = self._container.kind
        found = _find_format(self._container, format, None, self.name)
        self.parts = [RowsPart(self._container, found, self.images_root)]
        self._require_columns()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return self._container.fingerprint


class RowSubset(Rows):
    """Some rows of others, in the order given."""

    location = ""

    def __init__(self, rows: Rows, which: Sequence[int]) -> None:
        super().__init__(None, None, rows.image_limits, rows.columns)
        self._rows, self._which = rows, tuple(which)
        self.images_root, self.parts = rows.images_root, rows.parts
        self.name = f"{len(self._which)} rows of {rows.name}"

    @property
    def n_rows(self) -> int:
        return len(self._which)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        whole = self._rows.fingerprint
        digest = hashlib.sha256(f"{whole.sha256} {self._which}".encode())
        return Fingerprint(digest.hexdigest(), whole.n_bytes)

    def records(self, start: int, stop: int) -> Iterator[Record]:
        for row, first in enumerate(self._which[start:stop], start):
            yield from (replace(record, row=row) for record in self._rows.records(first, first + 1))

    def part_of(self, ref: ImageRef) -> RowsPart:
        return self._rows.part_of(ref)


def load_rows(
    rows: Any,
    images: str | Path | None = None,
    *,
    format: str | None = None,
    limit: int | None = None,
    allow_outside: bool = False,
    columns: Sequence[str] = (),
) -> Rows:
    """Rows to score, from whatever holds them.

    rows: a path, a URL, a pattern or a list of these; a `datasets.Dataset`; a list of dicts; or `Rows`, which are
        returned as they are. Images may be paths, `data:` URIs, encoded bytes, `{"bytes", "path"}` or PIL images.
    images: the folder that image paths are relative to. format: how a row writes its conversation; None detects it.
    limit: read only that many rows from the start. allow_outside: follow image paths that leave the folder.
    columns: of the rows, to keep beside their scores, for quotas; their values are kept as text.

    Raises DataError or SettingsError for what can't be read. A row that can't be used is a record with its reason.
    """
    if isinstance(rows, Rows):
        return rows
    how: dict[str, Any] = {"format": format, "limit": limit, "columns": columns}
    how["image_limits"] = ImageLimits(allow_outside=allow_outside)
    if isinstance(rows, str | Path) or _are_paths(rows):
        return FileRows(rows, images, **how)
    if _is_dataset(rows) or (isinstance(rows, Sequence) and not isinstance(rows, bytes)):
        return MemoryRows(rows, images, **how)
    splits = f"; choose a split: {', '.join(map(str, rows))}" if isinstance(rows, Mapping) else ""
    raise DataError(
        f"rows of type {type(rows).__module__}.{type(rows).__qualname__}{splits}; expected a path, a list of paths, a "
        "datasets.Dataset, a list of dicts, or what load_rows has returned"
    )


def _find_format(container: Container, wanted: str | None, path: Path | None, name: str) -> Format:
    first = list(islice(container.rows(), container.n_to_detect))
    if not first:
        raise DataError(f"{name} has no rows")
    return choose_format(wanted, first, path)


def _are_paths(rows: Any) -> bool:
    return isinstance(rows, list | tuple) and bool(rows) and all(isinstance(row, str | Path) for row in rows)


def _is_dataset(rows: Any) -> bool:
    """Whether it is a `datasets.Dataset`; the library isn't imported for that."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(rows, library.Dataset)


def fingerprint_file(path: Path) -> Fingerprint:
    """Hash a file of any size in bounded memory."""
    with open_input(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return Fingerprint(digest.hexdigest(), file.tell())


def find_folder(location: str | Path) -> Path | FileStore:
    """The image folder; DataError where there is none."""
    if (url := as_url(location)) is not None:
        return FileStore(url)
    path = as_path(location)
    if not path.is_dir():
        raise DataError(f"image folder {path.absolute()} isn't a directory")
    return path.absolute()


def _split_formats(format: str | None, n_parts: int) -> list[str | None]:
    """What is asked of each file."""
    if format is None or not format.startswith("["):
        return [format] * n_parts
    try:
        specs = json.loads(format)
    except ValueError:
        specs = []
    if len(specs) != n_parts or not all(isinstance(spec, str) for spec in specs):
        raise SettingsError(f"format={format!r:.80}: expected a name, or a JSON list of {n_parts}, one for each file")
    return list(specs)
