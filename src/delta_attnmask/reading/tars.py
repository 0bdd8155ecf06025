"""WebDataset tars as containers of rows: files that follow each other and share a name up to its first dot.

    000001.jpg  000001.json          the JSON says the row, in any format; the images of the sample are its images
    000002.0.jpg  000002.1.jpg  000002.json
    000003.jpg  000003.txt           a caption, read as MiniGPT-4's

A JSON whose images are named like the sample's files, or that names as many as there are, gets these; one that names
none gets all of them, in the order of the tar. Nothing is ever unpacked to disk, so names such as ../../etc/passwd are
harmless, and links, devices and folders are passed over. No torch here.
"""

import tarfile
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from delta_attnmask.errors import DataError, ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow, open_input
from delta_attnmask.reading.jsonfile import MAX_ROW_BYTES, parse_row
from delta_attnmask.records import ImageRef

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_TEXTS = frozenset({"txt", "caption"})
_MAX_IMAGE_BYTES = 256 << 20
_MAX_HEADER_BYTES = 8 << 10  # of an extended header, for which tarfile takes the square of its length in time
_CHUNK_BYTES = 1 << 20
_MAX_MEMBERS = 10_000  # of one sample
_EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


class Span(NamedTuple):
    """The bytes of a sample within the tar, headers and padding included."""

    start: int
    stop: int


class Member(NamedTuple):
    """A file of a sample: what follows its key, and where its bytes lie."""

    suffix: str
    offset: int
    n_bytes: int

    @property
    def kind(self) -> str:
        return self.suffix.rpartition(".")[2].lower()


class _Header(tarfile.TarInfo):
    """A header whose sizes are looked at before they are used; tarfile has `_proc_member` there to be overridden."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # the stubs leave it out
        return found


class TarFile:
    """Rows found by their byte offsets, which are kept once they are counted: 16 bytes a row."""

    kind = "a tar (WebDataset)"
    endings = (".tar",)
    n_to_detect = 8

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def n_rows(self) -> int:
        return len(self.spans)

    @cached_property
    def spans(self) -> list[Span]:
        """Found by reading the tar's headers once; DataError if it is broken."""
        return [Span(start, stop) for start, stop, _ in self._samples(Span(0, -1))]

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        if start == 0 and "spans" not in self.__dict__:  # nothing needs to be counted
            within = Span(0, -1)
        else:
            stop = self.n_rows if stop is None else min(stop, self.n_rows)
            if start >= stop:
                return
            within = Span(self.spans[start].start, self.spans[stop - 1].stop)
        with open_input(self.path) as file:
            for row, (begin, _, members) in enumerate(self._samples(within), start):
                if stop is not None and row >= stop:
                    return
                yield self._read_row(file, row, begin, members)

    def read_image(self, row: int, number: int) -> bytes:
        _, _, members = next(self._samples(self.spans[row])) if row < self.n_rows else (0, 0, [])
        images = [member for member in members if member.kind in _IMAGES]
        if number >= len(images):
            raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: the row has {len(images)} images")
        if images[number].n_bytes > _MAX_IMAGE_BYTES:
            detail = f"image {number} of row {row}: more than {_MAX_IMAGE_BYTES} bytes"
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, detail)
        with open_input(self.path) as file:
            return b"".join(_read(file, images[number]))

    def _samples(self, within: Span) -> Iterator[tuple[int, int, list[Member]]]:
        """Each sample in a part of the tar: its first byte, one past its last, and its files."""
        key, start, stop, members = "", within.start, within.start, list[Member]()
        for name, first, end, offset, n_bytes in self._members(within):
            folder, _, base = name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if members and f"{folder}/{stem}" != key:
                yield start, stop, members
                start, members = first, []
            start = start if members else first
            key, stop = f"{folder}/{stem}", end
            members.append(Member(suffix, offset, n_bytes))
            if len(members) > _MAX_MEMBERS:
                raise DataError(f"{self.path}: more than {_MAX_MEMBERS} files named {key!r:.80}")
        if members:
            yield start, stop, members

    def _members(self, within: Span) -> Iterator[tuple[str, int, int, int, int]]:
        """Each file: name, first byte with headers, one past its last with padding, first byte of content, and size."""
        with open_input(self.path) as file:
            size = file.seek(0, 2)
            file.seek(within.start)
            try:
                with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, errors="surrogateescape") as tar:
                    while (member := tar.next()) is not None:
                        tar.members = []  # type: ignore[attr-defined]  # else every header stays in memory
                        end = member.offset_data + -(-member.size // 512) * 512
                        if member.isreg() and not member.issparse():
                            if member.offset_data + member.size > size:
                                raise DataError(f"{self.path} is truncated inside {member.name!r:.80}")
                            yield member.name, member.offset, end, member.offset_data, member.size
                        if 0 <= within.stop <= end:
                            return
                    file.seek(tar.offset)  # the tar's end is a block of zeros, or that of the file
                    if file.read(512).strip(b"\0"):
                        raise DataError(f"{self.path} is broken at byte {tar.offset}: expected a tar header")
            except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
                raise DataError(f"{self.path} is no tar that can be read: {error}") from error

    def _read_row(self, file: BinaryIO, row: int, start: int, members: list[Member]) -> RawRow:
        key = sha256()
        for member in members:
            key.update(f"{member.suffix}\0{member.n_bytes}\0".encode(errors="surrogateescape"))
            for chunk in _read(file, member):
                key.update(chunk)
        try:
            value, error = _read_value(file, row, members), None
        except RowError as caught:
            value, error = None, caught
        return RawRow(row, start, b"", value, error, key.hexdigest())


def _read(file: BinaryIO, member: Member) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.n_bytes
    while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk


def _read_value(file: BinaryIO, row: int, members: list[Member]) -> dict[str, Any]:
    """The sample as one object, with references for images; RowError where it can't be one."""
    images = [member for member in members if member.kind in _IMAGES]
    references = [ImageRef(place=(row, n)) for n in range(len(images))]
    texts = [member for member in members if member.kind == "json"] or [
        member for member in members if member.kind in _TEXTS
    ]
    if len(texts) != 1:
        raise RowError(ReasonCode.BAD_SAMPLE, f"{len(texts)} .json files in the sample, expected one, or a .txt")
    if texts[0].n_bytes > MAX_ROW_BYTES:
        raise RowError(ReasonCode.TOO_LONG, f"longer than {MAX_ROW_BYTES} bytes")
    raw = b"".join(_read(file, texts[0]))
    if texts[0].kind != "json":
        return {"images": references, "caption": _decode(raw)}
    value, error = parse_row(raw)
    if error:
        raise error
    if not isinstance(value, dict):
        raise RowError(ReasonCode.WRONG_TYPE, "expected an object in the .json")
    return _with_images(value, [member.suffix for member in images], references)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RowError(ReasonCode.NOT_UNICODE, f"invalid UTF-8 at byte {error.start} of the text") from error


def _with_images(value: dict[str, Any], suffixes: list[str], references: list[ImageRef]) -> dict[str, Any]:
    """The row with its images replaced by those of the sample, by name, or in order where the names are others."""
    named = value.get("images") or value.get("image") or []
    names = named if isinstance(named, list) else [named]
    if not references or any(isinstance(name, str) and name.startswith("data:") for name in names):
        return value
    rest = {name: item for name, item in value.items() if name not in {"image", "images"}}
    if not names:
        return rest | {"images": references}
    found = [_match(name, suffixes) for name in names]
    if None not in found:
        return rest | {"images": [references[n] for n in found if n is not None]}
    if len(names) != len(references):
        raise RowError(
            ReasonCode.IMAGE_COUNT, f"{len(names)} images named in the .json, {len(references)} in the sample"
        )
    return rest | {"images": references}


def _match(name: object, suffixes: list[str]) -> int | None:
    """Which of the sample's images a name means: one that ends like it after the key."""
    suffix = name.rpartition("/")[2].partition(".")[2] if isinstance(name, str) else ""
    return suffixes.index(suffix) if len(suffixes) > 1 and suffixes.count(suffix) == 1 else None
