"""Where a converted data set finds its images: where they are, or beside it if the data held them. No torch here."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.locations import RemoteFolder
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef
from delta_attnmask.storage import write_atomically

_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II": "tif"}


def find_ending(data: bytes) -> str:
    """The file ending that an image's first bytes ask for."""
    return next((ending for start, ending in _ENDINGS.items() if data.startswith(start)), "tif")


class ImagePlaces:
    """References as a trainer needs them.

    root: the folder that references are below; others are absolute. It is the data's own image folder if there is
    just one, else OUT.images, where images are unpacked that stood in the data or behind a URL.
    """

    def __init__(self, dataset: FileRows, out: Path) -> None:
        self._dataset = dataset
        self._unpacked = out.absolute().with_name(f"{out.name}.images")
        roots = {part.images_root for part in dataset.parts if isinstance(part.images_root, Path)}
        self.root = roots.pop() if len(roots) == 1 else self._unpacked

    def place(self, references: Sequence[ImageRef]) -> list[str]:
        """The references of a record's images; RowError where one can't be had."""
        return [self._place(reference) for reference in references]

    def _place(self, ref: ImageRef) -> str:
        root = self._dataset.part_of(ref).images_root
        if not ref.path or isinstance(root, RemoteFolder):
            return self._below_root(self._unpack(self._dataset.read_image_bytes(ref)))
        if root is None:
            raise RowError(ReasonCode.NO_IMAGE_FOLDER, f"image {ref.path!r:.80}: no image folder was given")
        return ref.path if root == self.root else self._below_root(root / ref.path)

    def _unpack(self, data: bytes) -> Path:
        name = sha256(data).hexdigest()
        path = self._unpacked / name[:2] / f"{name}.{find_ending(data)}"
        if not path.exists():
            with write_atomically(path) as file:
                file.write(data)
        return path

    def _below_root(self, path: Path) -> str:
        return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
