"""Images from untrusted files: contained, capped, decoded as a whole. No torch here."""

import base64
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.locations import FileStore
from delta_attnmask.reading.containers import show_bytes
from delta_attnmask.records import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile


_MAX_SCANS = 100  # of a JPEG; each costs the time of a whole picture, and a few bytes


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What an image may be.

    max_bytes: of the file, or of the bytes that the data hold.
    max_pixels: width times height as the header says, looked at before anything is decoded.
    max_row_pixels: of all images of a row together.
    allow_outside: follow absolute paths, and links and `..` that leave the image folder.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 50_000_000
    max_row_pixels: int = 200_000_000
    allow_outside: bool = False


def read_image_file(path: str, root: Path | FileStore | None, limits: ImageLimits = ImageLimits()) -> bytes:
    """The undecoded image at a path below `root`; RowError with the reason. Nothing is fetched from the network."""
    if "://" in path:
        detail = f"image {_short(path)}: URLs are never fetched; save it below the image folder"
        raise RowError(ReasonCode.URL_IMAGE, detail)
    if root is None and not (limits.allow_outside and Path(path).is_absolute()):
        raise RowError(ReasonCode.NO_IMAGE_FOLDER, f"image {_short(path)}: no image folder was given")
    if isinstance(root, FileStore):
        return _read_remote(path, root, limits)
    try:
        return _read_file(path, root or Path("/"), limits)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the path; RuntimeError: links in a loop
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        code = ReasonCode.IMAGE_MISSING if is_missing else ReasonCode.IMAGE_UNREADABLE
        raise RowError(code, f"image {_short(path)}: {why}") from error


def parse_data_uri(uri: str) -> bytes:
    """The bytes that a base64 `data:` URI holds; RowError for another."""
    header, comma, body = uri.partition(",")
    if not comma or not header.endswith(";base64"):
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, "image data URI: expected data:<type>;base64,<data>")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, f"image data URI: {error}") from error


def iter_images(
    references: Iterable[ImageRef], load: "Callable[[ImageRef], Image]", limits: ImageLimits = ImageLimits()
) -> "Iterator[Image]":
    """The images of a row, by what loads one; RowError where together they hold more pixels than a row may."""
    n_pixels = 0
    for reference in references:
        image = load(reference)
        n_pixels += image.width * image.height
        if n_pixels > limits.max_row_pixels:
            detail = f"the row's images hold more than {limits.max_row_pixels} pixels together"
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, detail)
        yield image


def decode_image(data: bytes, limits: ImageLimits = ImageLimits()) -> "Image":
    """Decode a whole image: first frame, EXIF rotation applied, transparency over white, 16 bits scaled to 8, RGB."""
    with _decoding(), _open_decoder(data) as image:
        return prepare_image(image, limits)


def prepare_image(image: "Image", limits: ImageLimits = ImageLimits()) -> "Image":
    """What `decode_image` makes of an image, of one that is open already; that one isn't changed."""
    from PIL import ImageOps

    with _decoding():
        if image.width * image.height > limits.max_pixels:
            detail = f"image of {image.width}x{image.height}: more than {limits.max_pixels} pixels"
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, detail)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except RowError:
        raise
    except Exception as error:  # a decoder at work on hostile bytes may raise anything; it is about this image only
        why = _short(str(error) or type(error).__name__)
        raise RowError(ReasonCode.IMAGE_UNREADABLE, f"image can't be decoded: {why}") from error


def encode_picture(image: "Image") -> bytes:
    """A picture as the bytes of a file: PNG, which loses nothing."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _read_remote(reference: str, root: FileStore, limits: ImageLimits) -> bytes:
    """Raises RowError for faults of the row, OSError for those of the network, which are tried again."""
    name = posixpath.normpath(reference)
    if name.startswith(("/", "..")):
        raise RowError(ReasonCode.IMAGE_OUTSIDE, f"image {_short(reference)}: outside the image folder")
    data = root.read(name, limits.max_bytes + 1)
    if data is None:
        raise RowError(ReasonCode.IMAGE_MISSING, f"image {_short(reference)}: no such file in {root}")
    if len(data) > limits.max_bytes:
        raise RowError(ReasonCode.IMAGE_TOO_LARGE, f"image {_short(reference)}: more than {limits.max_bytes} bytes")
    return data


def _read_file(reference: str, root: Path, limits: ImageLimits) -> bytes:
    real = (root / reference).resolve()
    if not limits.allow_outside and (Path(reference).is_absolute() or not real.is_relative_to(_resolve(root))):
        raise RowError(ReasonCode.IMAGE_OUTSIDE, f"image {_short(reference)}: outside the image folder")
    with open(real, "rb", opener=_open_at_once) as file:  # Path.open takes no opener
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RowError(ReasonCode.IMAGE_UNREADABLE, f"image {_short(reference)}: not a regular file")
        if status.st_size > limits.max_bytes:
            raise RowError(ReasonCode.IMAGE_TOO_LARGE, f"image {_short(reference)}: more than {limits.max_bytes} bytes")
        return file.read(status.st_size)


@lru_cache
def _resolve(root: Path) -> Path:
    return root.resolve()


def _open_at_once(path: str, flags: int) -> int:
    """Without O_NONBLOCK a FIFO would wait for a writer; O_NOFOLLOW: a link put in place since can't lead elsewhere."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _open_decoder(data: bytes) -> "ImageFile":
    """The decoder that the first bytes ask for, chosen here: `Image.open` would also try exotic ones.

    `Image.open` also prints a warning for large images that only process-wide state could turn into an error.
    """
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    if (n_scans := data.count(b"\xff\xda")) > _MAX_SCANS and data.startswith(b"\xff\xd8\xff"):
        raise RowError(ReasonCode.IMAGE_TOO_LARGE, f"image of {n_scans} scans: more than {_MAX_SCANS}")
    decoders: dict[tuple[bytes, ...], Callable[[BytesIO], ImageFile]] = {
        (b"\xff\xd8\xff",): JpegImagePlugin.JpegImageFile,
        (b"\x89PNG\r\n\x1a\n",): PngImagePlugin.PngImageFile,
        (b"RIFF",): WebPImagePlugin.WebPImageFile,
        (b"GIF87a", b"GIF89a"): GifImagePlugin.GifImageFile,
        (b"BM",): BmpImagePlugin.BmpImageFile,
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): TiffImagePlugin.TiffImageFile,
    }
    for starts, decoder in decoders.items():
        if data.startswith(starts):
            return decoder(BytesIO(data))
    got = f"starts with {show_bytes(data[:8])}" if data else "is empty"
    raise RowError(ReasonCode.IMAGE_UNREADABLE, f"image {got}: expected JPEG, PNG, WEBP, GIF, BMP or TIFF")


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.arange(65536) / 257).astype(np.uint8)[np.asarray(image)]).convert("RGB")
    if image.mode in {"I", "F"}:
        raise RowError(
            ReasonCode.IMAGE_UNREADABLE, "image of 32 bits a pixel, which have no agreed white: save it with 8"
        )
    if image.has_transparency_data:
        over = Image.new("RGB", image.size, "white")
        colours = image.convert("RGBA")
        over.paste(colours, mask=colours)
        return over
    return image.convert("RGB")


def _short(text: str) -> str:
    """Quoted, printable and of bounded length."""
    return repr(text if len(text) <= 80 else f"{text[:60]}…{text[-19:]}")
