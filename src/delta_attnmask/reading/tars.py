"""WebDataset tars as containers of rows: files that follow each other and share a name up to its first dot.

    000001.jpg  000001.json          the JSON says the row, in any format; the images of the sample are its images
    000002.0.jpg  000002.1.jpg  000002.json
    000003.jpg  000003.txt           a caption, read as MiniGPT-4's

A JSON whose images are named like the sample's files, or that names as many as there are, gets these; one that names
none gets all of them, in the order of the tar. Nothing is ever unpacked to disk, so names such as ../../etc/passwd are
harmless, and links, devices and folders are passed over. No torch here.
"""

import tarfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

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
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class _Header(tarfile.TarInfo):
    """A header whose sizes are looked at before they are used; tarfile has `_proc_member` there to be overridden."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # the stubs leave it out
        return found


def _split_name(name: str) -> tuple[str, str]:
    """The key of a file's sample, and what follows it."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix


def _ending(member: tarfile.TarInfo) -> str:
    return member.name.rpartition(".")[2].lower()


def _stop(member: tarfile.TarInfo) -> int:
    """One past the member's last byte, padding included."""
    return member.offset_data + -(-member.size // 512) * 512


class TarFile:
    """Rows found by their byte offsets, which are kept once they are counted."""

    kind = "a tar (WebDataset)"
    endings = (".tar",)
    n_to_detect = 8

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def n_rows(self) -> int:
        return len(self.spans)

    @cached_property
    def spans(self) -> NDArray[np.int64]:
        """Each sample's first byte and one past its last, shape (rows, 2), headers and padding included.

        Found by reading the tar's headers once; DataError if it is broken.
        """
        found = ((members[0].offset, _stop(members[-1])) for members in self._samples(0, None))
        return np.fromiter(found, np.dtype((np.int64, 2)))

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """From the start nothing needs to be counted first."""
        if start and start >= self.n_rows:
            return
        samples = self._samples(int(self.spans[start, 0]) if start else 0, None)
        with open_input(self.path) as file:
            for row, members in enumerate(islice(samples, None if stop is None else max(stop - start, 0)), start):
                yield _read_row(file, row, members)

    def read_image(self, row: int, number: int) -> bytes:
        members = next(self._samples(*self.spans[row].tolist())) if row < self.n_rows else []
        images = [member for member in members if _ending(member) in _IMAGES]
        if number >= len(images):
            raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: the row has {len(images)} images")
        if images[number].size > _MAX_IMAGE_BYTES:
            detail = f"image {number} of row {row}: more than {_MAX_IMAGE_BYTES} bytes"
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, detail)
        with open_input(self.path) as file:
            return b"".join(_read(file, images[number]))

    def _samples(self, start: int, stop: int | None) -> Iterator[list[tarfile.TarInfo]]:
        """The files of each sample from byte `start` on, up to one that ends at `stop`."""
        for key, found in groupby(self._members(start, stop), lambda member: _split_name(member.name)[0]):
            members = list(islice(found, _MAX_MEMBERS + 1))
            if len(members) > _MAX_MEMBERS:
                raise DataError(f"{self.path}: more than {_MAX_MEMBERS} files named {key!r:.80}")
            yield members

    def _members(self, start: int, stop: int | None) -> Iterator[tarfile.TarInfo]:
        with open_input(self.path) as file:
            size = file.seek(0, 2)
            file.seek(start)
            try:
                with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, errors="surrogateescape") as tar:
                    while (member := tar.next()) is not None:
                        tar.members = []  # type: ignore[attr-defined]  # else every header stays in memory
                        if member.isreg() and not member.issparse():
                            if member.offset_data + member.size > size:
                                raise DataError(f"{self.path} is truncated inside {member.name!r:.80}")
                            yield member
                        if stop is not None and stop <= _stop(member):
                            return
                    file.seek(tar.offset)  # the tar's end is a block of zeros, or that of the file
                    if file.read(512).strip(b"\0"):
                        raise DataError(f"{self.path} is broken at byte {tar.offset}: expected a tar header")
            except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
                raise DataError(f"{self.path} is no tar that can be read: {error}") from error


def _read(file: BinaryIO, member: tarfile.TarInfo) -> Iterator[bytes]:
    file.seek(member.offset_data)
    left = member.size
    while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk


def _read_row(file: BinaryIO, row: int, members: Sequence[tarfile.TarInfo]) -> RawRow:
    key = sha256()
    for member in members:
        key.update(f"{_split_name(member.name)[1]}\0{member.size}\0".encode(errors="surrogateescape"))
        for chunk in _read(file, member):
            key.update(chunk)
    value, error = None, None
    try:
        value = _read_value(file, row, members)
    except RowError as caught:
        error = caught
    return RawRow(row, members[0].offset, b"", value, error, key.hexdigest())


def _read_value(file: BinaryIO, row: int, members: Sequence[tarfile.TarInfo]) -> dict[str, Any]:
    """The sample as one object, with references for images; RowError where it can't be one."""
    images = [member for member in members if _ending(member) in _IMAGES]
    references = [ImageRef(place=(row, n)) for n in range(len(images))]
    texts = [member for member in members if _ending(member) == "json"] or [
        member for member in members if _ending(member) in _TEXTS
    ]
    if len(texts) != 1:
        raise RowError(ReasonCode.BAD_SAMPLE, f"{len(texts)} .json files in the sample, expected one, or a .txt")
    if texts[0].size > MAX_ROW_BYTES:
        raise RowError(ReasonCode.TOO_LONG, f"longer than {MAX_ROW_BYTES} bytes")
    raw = b"".join(_read(file, texts[0]))
    if _ending(texts[0]) != "json":
        try:
            return {"images": references, "caption": raw.decode()}
        except UnicodeDecodeError as wrong:
            raise RowError(ReasonCode.NOT_UNICODE, f"invalid UTF-8 at byte {wrong.start} of the text") from wrong
    value, error = parse_row(raw)
    if error:
        raise error
    if not isinstance(value, dict):
        raise RowError(ReasonCode.WRONG_TYPE, "expected an object in the .json")
    named = value.get("images") or value.get("image") or []
    names = named if isinstance(named, list) else [named]
    if not references or any(isinstance(name, str) and name.startswith("data:") for name in names):
        return value
    by_suffix = {_split_name(image.name)[1]: reference for image, reference in zip(images, references, strict=True)}
    found = [by_suffix.get(_split_name(name)[1]) if isinstance(name, str) else None for name in names]
    if not names or len(references) == 1 or None in found:
        if names and len(names) != len(references):
            raise RowError(
                ReasonCode.IMAGE_COUNT, f"{len(names)} images named in the .json, {len(references)} in the sample"
            )
        found = [*references]
    return {name: item for name, item in value.items() if name != "image"} | {"images": found}
