"""What rows of every format may carry beside their turns: id, source, and images. No torch here."""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.images import parse_data_uri
from delta_attnmask.reading.turns import check_unicode, kind
from delta_attnmask.records import ImageRef

_SOURCE_KEYS = ("source", "data_source", "task_name", "dataset")
_IMAGE_KEYS = ("image", "images")
_VIDEO_KEYS = ("video", "videos")
_MAX_LABEL_CHARS = 500
_BY_HASH = re.compile(r"(?:^|/)([0-9a-f]{2})/\1[0-9a-f]{62}\.\w+$")  # ab/abcdef….png, as unpacked images are named


def check_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RowError(ReasonCode.WRONG_TYPE, f"expected an object, got {kind(value)}")
    return value


def find_label(fields: Mapping[str, Any]) -> str:
    """The row's id, or an empty text."""
    value = fields.get("id", fields.get("image_id"))
    return _clean_label(str(value)) if isinstance(value, str | int | float) else ""


def find_source(fields: Mapping[str, Any], images: tuple[ImageRef, ...] = ()) -> str:
    """The data set that the row names, else the first folder of its image's path.

    An absolute path says where a machine keeps things, one that leaves the image folder leads anywhere, and a name that
    is a hash says nothing: none of them gives a source.
    """
    for key in _SOURCE_KEYS:
        if isinstance(value := fields.get(key), str) and value:
            return _clean_label(value)
    first = images[0].path if images else _first_path(fields)
    if not first or first.startswith("/") or ":" in first[:16] or _BY_HASH.search(first):  # a URL has a colon
        return ""
    folders = [part for part in posixpath.normpath(first).split("/")[:-1] if part]
    return _clean_label(folders[0]) if folders and folders[0] != ".." else ""


def _first_path(fields: Mapping[str, Any]) -> str:
    value = fields.get("image") or fields.get("images")
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else ""


def _clean_label(text: str) -> str:
    """Short, and free of lone surrogates, which no file can store."""
    return text[:_MAX_LABEL_CHARS].encode(errors="replace").decode()


def refuse_video(fields: Mapping[str, Any]) -> None:
    if any(fields.get(key) for key in _VIDEO_KEYS):
        raise RowError(ReasonCode.MEDIA_UNSUPPORTED, "video isn't supported")
    if fields.get("audio") or fields.get("audios"):
        raise RowError(ReasonCode.MEDIA_UNSUPPORTED, "audio isn't supported")


def find_images(fields: Mapping[str, Any]) -> tuple[ImageRef, ...]:
    """The row's images, in order; RowError for videos and for what names no image."""
    refuse_video(fields)
    given = [key for key in _IMAGE_KEYS if fields.get(key)]
    if len(given) == 2 and fields["image"] != fields["images"]:
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, "both `image` and `images` are given, and differ")
    return read_images(fields[given[0]], given[0]) if given else ()


def read_images(value: object, name: str) -> tuple[ImageRef, ...]:
    """One image or a list of them."""
    return tuple(read_image(image, name) for image in (value if isinstance(value, list) else [value]))


def read_image(image: object, name: str) -> ImageRef:
    """One image: itself, a path or a `data:` URI, also as `{"path": …}`, `{"url": …}` or `{"bytes": base64}`."""
    given = _read_image_object(image) if isinstance(image, dict) else image
    if isinstance(given, ImageRef):
        return given
    if not isinstance(given, str) or not given:
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, f"`{name}` must be a path or a list of paths, got {kind(image)}")
    check_unicode(given, f"`{name}`")
    return ImageRef(data=parse_data_uri(given)) if given.startswith("data:") else ImageRef(given)


def _read_image_object(image: Mapping[str, Any]) -> object:
    """Hugging Face's and ms-swift's `{"bytes", "path"}`, OpenAI's `{"url"}`; the bytes count where both are given."""
    data = image.get("bytes")
    if isinstance(data, str) and data:
        return f"data:image;base64,{data}"
    return data or image.get("path") or image.get("url")
