"""Hostile and odd images: a picture of the right colours, or a RowError with a plain reason."""

import base64
import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from delta_attnmask.errors import RowError
from delta_attnmask.reading.conversation import read_image
from delta_attnmask.reading.images import ImageLimits, decode_image, read_image_file
from delta_attnmask.records import ImageRef

RED, WHITE = (255, 0, 0), (255, 255, 255)


def load_image(path: str, root: Path | None, limits: ImageLimits = ImageLimits()) -> Image.Image:
    return decode_image(read_image_file(path, root, limits), limits)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "a").mkdir(parents=True)
    (root / "a" / "red.png").write_bytes(encode(Image.new("RGB", (4, 2), RED)))
    (tmp_path / "secret.png").write_bytes(encode(Image.new("RGB", (4, 2))))
    return root


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be large and does hold that many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_plain_file(root):
    image = load_image("a/red.png", root)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 2), RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_that_is_allowed(kind):
    image = decode_image(encode(Image.new("RGB", (16, 16), RED), kind))
    assert np.abs(np.asarray(image).astype(int) - RED).max() < 10


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA", "PCX", "JPEG2000"])
def test_no_other_format(kind):
    with pytest.raises(RowError, match="expected JPEG, PNG"):
        decode_image(encode(Image.new("RGB", (16, 16), RED), kind))


def test_the_extension_means_nothing(root):
    (root / "x.jpg").write_bytes(encode(Image.new("RGB", (4, 2), RED)))
    assert load_image("x.jpg", root).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    "reference",
    [
        "../secret.png",
        "a/../../secret.png",
        "/etc/passwd",
        "{root}/a/red.png",
        "link/secret.png",
        "link.png",
        "../none",
        "..",
        "a/../..",
        "link/none/../secret.png",
    ],
)
def test_outside_the_folder(root, reference):
    (root / "link").symlink_to(root.parent)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    with pytest.raises(RowError, match="outside the image folder"):
        load_image(reference.format(root=root), root)


def test_outside_by_choice(root):
    limits = ImageLimits(allow_outside=True)
    (root / "link").symlink_to(root.parent)
    for reference in (str(root / "a" / "red.png"), "link/secret.png"):
        assert load_image(reference, root, limits).size == (4, 2)


def test_links_that_stay_inside(root):
    (root / "link").symlink_to(root / "a")
    (root / "first.png").symlink_to("link/red.png")
    (root / "second.png").symlink_to(root / "first.png")
    for reference in ("link/red.png", "first.png", "second.png", "a/../a/red.png", "./a//red.png"):
        assert load_image(reference, root).size == (4, 2)


def test_a_root_that_is_a_link(root):
    (root.parent / "other").symlink_to(root)
    assert load_image("a/red.png", root.parent / "other").size == (4, 2)


def test_a_sibling_folder_of_like_name_is_outside(root):
    (root.parent / "images2").mkdir()
    (root.parent / "images2" / "x.png").write_bytes(b"")
    with pytest.raises(RowError, match="outside"):
        load_image("../images2/x.png", root)


@pytest.mark.parametrize(
    "reference", ["http://localhost/x.png", "https://h/x.png", "file:///etc/passwd", "s3://b/x.png"]
)
def test_urls_are_refused(root, reference):
    with pytest.raises(RowError, match="URLs are never fetched"):
        load_image(reference, root)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("none.png", "No such file"),
        ("a", "Is a directory"),
        ("a/red.png/x", "Not a directory"),
        ("nul\0.png", "null byte"),
        ("x" * 5000, "name too long"),
        ("loop", "loop|Too many levels"),
        ("fifo", "not a regular file"),
        ("", "Is a directory"),
        ("a/..", "Is a directory"),
        ("a/", "Is a directory"),
        ("x" * 5000 + "/red.png", "name too long"),
        ("loop/red.png", "loop|Too many levels"),
    ],
)
def test_what_is_no_image_file(root, reference, problem):
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    with pytest.raises(RowError, match=problem):
        load_image(reference, root)


def test_a_device(root):
    (root / "zero").symlink_to("/dev/zero")
    with pytest.raises(RowError, match="not a regular file"):
        load_image("zero", root, ImageLimits(allow_outside=True))


def test_no_folder_at_all(root):
    with pytest.raises(RowError, match="no image folder was given"):
        load_image("a/red.png", None)


def test_file_too_large(root):
    with pytest.raises(RowError, match="more than 20 bytes"):
        load_image("a/red.png", root, ImageLimits(max_bytes=20))


def test_data_uri():
    data = encode(Image.new("RGB", (4, 2), RED))
    reference = "data:image/png;base64," + base64.b64encode(data).decode()
    assert read_image(reference, "image") == ImageRef(data=data) == read_image({"bytes": reference[22:]}, "image")


@pytest.mark.parametrize(
    "reference",
    ["data:", "data:image/png,abc", "data:image/png;base64,####", "data:image/png;base64,é"],
)
def test_bad_data_uri(reference):
    with pytest.raises(RowError):
        read_image(reference, "image")


def test_bomb_is_refused_before_it_is_decoded():
    data, started = bomb(16_000, 16_000), time.perf_counter()
    assert len(data) < 50_000
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(RowError, match="image of 16000x16000: more than 50000000"),
    ):
        decode_image(data)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), kind)
    with pytest.raises(RowError, match="can't be decoded"):
        decode_image(data[: len(data) // 2])


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_an_image_or_a_row_error(kind, changes):
    data = bytearray(encode(Image.new("RGB", (20, 20), RED), kind))
    for place, byte in changes:
        data[place % len(data)] = byte
    with suppress(RowError):
        assert decode_image(bytes(data), ImageLimits(max_pixels=1_000_000)).mode == "RGB"


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 1)), (6, (1, 0)), (8, (0, 3))])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation(kind, orientation, corner):
    image = Image.new("RGB", (32, 16))
    image.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_image(encode(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert upright.size == ((32, 16) if orientation in {1, 3} else (16, 32))
    assert upright.getpixel((corner[0] * 8 + 4, corner[1] * 8 + 4))[0] > 200


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert image.getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(kind):
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = decode_image(encode(Image.fromarray(levels), kind))
    assert [pixel[0] for pixel in image.get_flattened_data()] == [0, 1, 128, 255]


def test_big_endian_sixteen_bits():
    image = Image.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff")
    assert [pixel[0] for pixel in decode_image(encode(image, "TIFF")).get_flattened_data()] == [128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_levels_without_a_white_are_refused(dtype):
    with pytest.raises(RowError, match="no agreed white"):
        decode_image(encode(Image.fromarray(np.array([[0, 5]], dtype=dtype)), "TIFF"))


def transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    return image.quantize() if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(mode):
    image = decode_image(encode(transparent(mode)))
    assert image.getpixel((1, 0)) == WHITE
    assert image.getpixel((0, 0)) != WHITE


def test_a_transparent_colour_shows_white():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (1, 2, 3))
    assert decode_image(encode(image, transparency=(1, 2, 3))).getpixel((1, 0)) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes(mode):
    source = Image.new("RGB", (16, 16), WHITE)
    source = Image.new("LAB", (16, 16), (255, 128, 128)) if mode == "LAB" else source.convert(mode)
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "TIFF"
    assert min(decode_image(encode(source, kind)).getpixel((8, 8))) > 250


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_odd_sizes(size):
    assert decode_image(encode(Image.new("L", size))).size == size


def find_state() -> list[Callable[..., object] | object]:
    from PIL import ImageFile

    return [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(os.environ)]


def test_global_state_is_left_alone(root):
    before = find_state()
    load_image("a/red.png", root)
    assert find_state() == before
