"""A data set as records: counted, fingerprinted, and read from any row on, whatever files it lies in. No torch here."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.locations import RemoteFolder, as_path, as_url
from delta_attnmask.reading.containers import Container, open_container
from delta_attnmask.reading.formats import Format, choose_format, read_record
from delta_attnmask.reading.images import ImageLimits, decode_image, iter_images, read_image_bytes
from delta_attnmask.reading.inputs import Source, find_sources
from delta_attnmask.reading.rows import open_input
from delta_attnmask.records import Fingerprint, Record

if TYPE_CHECKING:
    from PIL.Image import Image

_PART_MARK = "|"  # between a part's number and an image reference, where parts have images of their own


def fingerprint_file(path: Path) -> Fingerprint:
    """Hash a file of any size in bounded memory."""
    with open_input(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return Fingerprint(digest.hexdigest(), file.tell())


@dataclass(frozen=True)
class Part:
    """One file of a data set: where its rows stand, how they are read, and where their images lie.

    name: the source of all its rows; empty where the rows say it. weight: see `Source`.
    """

    container: Container
    format: Format
    images_root: Path | RemoteFolder | None
    name: str = ""
    weight: float = 1.0

    @property
    def path(self) -> Path:
        return self.container.path

    def read_image_bytes(self, reference: str, limits: ImageLimits) -> bytes:
        data = self.container.read_embedded(reference)
        if data is None:
            return read_image_bytes(reference, self.images_root, limits)
        if len(data) > limits.max_bytes:
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, f"image {reference}: more than {limits.max_bytes} bytes")
        return data


class Dataset:
    """The records of one file, several, a pattern, a folder, or a mixture file.

    location: see `find_sources`.
    images_root: the folder below which image paths are looked up; None if no image will be loaded, or the data holds
        them, or a mixture names a folder for each source.
    format: `NAME` or `NAME:OPTION`, see FORMATS, or a JSON list of one for each file; None to recognise it.
    limit: read only that many rows from the start.

    Raises DataError or SettingsError at once for a file, a folder or a format that can't be used. Can be pickled.
    """

    def __init__(
        self,
        location: str | Path | Sequence[str | Path],
        images_root: str | Path | None = None,
        *,
        format: str | None = None,
        limit: int | None = None,
        image_limits: ImageLimits = ImageLimits(),
    ) -> None:
        if limit is not None and limit < 1:
            raise SettingsError(f"limit={limit}: expected at least 1")
        self.images_root = None if images_root is None else _find_folder(images_root)
        self.limit = limit
        self.image_limits = image_limits
        self.location, sources = find_sources(location)
        formats = _split_formats(format, len(sources))
        self.parts = [self._open(source, wanted) for source, wanted in zip(sources, formats, strict=True)]
        self._is_qualified = len(self.parts) > 1 and (
            len({part.images_root for part in self.parts}) > 1 or any(_embeds(part) for part in self.parts)
        )

    def _open(self, source: Source, format: str | None) -> Part:
        container = open_container(source.path)
        first = list(islice(container.rows(), container.n_to_detect))
        if not first:
            raise DataError(f"{source.path} has no rows")
        chosen = choose_format(source.format or format, first, source.path)
        images = self.images_root if source.images is None else _find_folder(source.images)
        return Part(container, chosen, images, source.name, source.weight)

    @property
    def path(self) -> Path:
        """The location as a path, which opens the same data again; of several files it says which, but names none.

        Behind a URL it is the copy on this machine.
        """
        return Path(self.location) if as_url(self.location) is None else self.parts[0].path

    @property
    def format_name(self) -> str:
        """The format with its options, or those of all parts as a JSON list; `format` takes either."""
        specs = [part.format.spec for part in self.parts]
        return specs[0] if len(set(specs)) == 1 else json.dumps(specs, ensure_ascii=False)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the file, or of the parts' files in their order."""
        found = [fingerprint_file(part.path) for part in self.parts]
        if len(found) == 1:
            return found[0]
        lines = "".join(f"{one.sha256} {one.n_bytes}\n" for one in found)
        return Fingerprint(hashlib.sha256(lines.encode()).hexdigest(), sum(one.n_bytes for one in found))

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each part, and the number of rows behind the last one, `limit` left aside."""
        return [0, *accumulate(part.container.n_rows for part in self.parts)]

    def count_rows(self) -> list[int]:
        """How many rows each part gives, `limit` applied."""
        ends = [min(end, self.n_rows) for end in self.starts]
        return [behind - first for first, behind in pairwise(ends)]

    @property
    def n_rows(self) -> int:
        """How many rows there are, found by reading the files once; DataError if one is broken anywhere."""
        return min(self.starts[-1], self.limit or self.starts[-1])

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Record]:
        """Every record in order, without counting them first."""
        return islice(self._iter_all(), self.limit)

    def _iter_all(self) -> Iterator[Record]:
        n_before = 0
        for number in range(len(self.parts)):
            record = None
            for record in self._read_part(number, n_before):
                yield record
            n_before = n_before if record is None else record.row + 1

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """The records of rows `start` to `stop`, found without reading what is before them."""
        stop = min(stop, self.n_rows)
        number = bisect_right(self.starts, start) - 1
        while start < stop:
            first, behind = self.starts[number], self.starts[number + 1]
            yield from self._read_part(number, first, start - first, min(stop, behind) - first)
            start, number = behind, number + 1

    def _read_part(self, number: int, n_before: int, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        part = self.parts[number]
        for row in part.container.rows(start, stop):
            record = read_record(part.format, row)
            yield record if len(self.parts) == 1 and not part.name else self._place(record, number, n_before)

    def _place(self, record: Record, number: int, n_before: int) -> Record:
        """The record as one of the whole data set: its row, its source, and whose its images are."""
        images = record.images
        if self._is_qualified:
            images = tuple(f"{number}{_PART_MARK}{image}" for image in images)
        source = self.parts[number].name or record.source
        return replace(record, row=n_before + record.row, source=source, images=images)

    def load_image(self, reference: str) -> "Image":
        """Load one of a record's images; RowError with the reason if that isn't possible."""
        return decode_image(self.read_image_bytes(reference), self.image_limits)

    def load_images(self, references: Sequence[str]) -> "list[Image]":
        """Load a record's images; RowError also where together they hold more pixels than a row may."""
        return list(iter_images(references, self.load_image, self.image_limits))

    def read_image_bytes(self, reference: str) -> bytes:
        """The undecoded bytes of one of a record's images."""
        part, reference = self.resolve(reference)
        return part.read_image_bytes(reference, self.image_limits)

    def resolve(self, reference: str) -> tuple[Part, str]:
        """Whose image a reference means, and the reference as its part's row has it."""
        if not self._is_qualified:
            return self.parts[0], reference
        number, _, rest = reference.partition(_PART_MARK)
        return self.parts[int(number)], rest


def _split_formats(format: str | None, n_parts: int) -> list[str | None]:
    """What is asked of each file."""
    if format is None or not format.startswith("["):
        return [format] * n_parts
    try:
        specs = json.loads(format)
    except ValueError as error:
        raise SettingsError(f"format={format!r:.80}: expected a name, or a JSON list of names") from error
    if len(specs) != n_parts or not all(isinstance(spec, str) for spec in specs):
        raise SettingsError(f"format={format!r:.80}: expected {n_parts} names, one for each file")
    return list(specs)


def _find_folder(location: str | Path) -> Path | RemoteFolder:
    if (url := as_url(location)) is not None:
        return RemoteFolder(url)
    path = as_path(location)
    if not path.is_dir():
        raise DataError(f"image folder {path.absolute()} is no directory")
    return path.absolute()


def _embeds(part: Part) -> bool:
    from delta_attnmask.reading.jsonfile import JsonFile

    return not isinstance(part.container, JsonFile)
