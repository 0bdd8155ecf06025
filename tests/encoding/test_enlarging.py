"""Rows whose images a processor would make far more of than their files say are refused before it is called."""

from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor

from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.encoding.processing import Enlargement
from delta_attnmask.errors import RowError
from tests.encoding.wrapped import Wrapped
from tests.reading.prompts import FAMILIES, Prompts, conversation, llava


@cache
def prompts(family: str) -> Prompts:
    return FAMILIES[family]()


def encode(encoder: Encoder, *images: Image.Image) -> Any:
    return encoder.encode(conversation((None,) * len(images), "A cat."), images)


def counting(found: Prompts) -> tuple[Encoder, list[int]]:
    """An encoder, and how many images each call of its processor is given."""
    wrapped = Wrapped(found.processor)
    return Encoder(wrapped, found.image_token_id), wrapped.n_images


def llava_at(edge: int) -> Prompts:
    found = llava()
    found.processor.image_processor = CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
    )
    return found


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 10_000)])
def test_one_long_image(size):
    encoder, calls = counting(llava_at(336))
    with pytest.raises(RowError, match=rf"more than 200000000 pixels .*one of {size[0]}x{size[1]} becomes \d{{9,}}"):
        encode(encoder, Image.new("RGB", size))
    assert not calls


def test_images_that_are_long_together():
    encoder, calls = counting(llava_at(56))
    one = Image.new("RGB", (1, 2000))
    assert encode(encoder, one).inputs["pixel_values"].shape == (1, 3, 56, 56)
    with pytest.raises(RowError, match="pixels of the row's images"):
        encode(encoder, *[one] * 40)
    assert calls == [1]


def test_padding_to_a_square_counts():
    found = Enlargement(LlavaImageProcessor(do_pad=True), lambda image: {})
    found.refuse([Image.new("RGB", (10, 10_000))])
    with pytest.raises(RowError, match="becomes 225000000"):
        found.refuse([Image.new("RGB", (100, 15_000))])


def test_the_number_of_pixels_is_no_edge():
    """Qwen's `shortest_edge` is a number of pixels, and its `longest_edge` bounds what comes of an image."""
    long = [Image.new("RGB", (1, 10_000))]
    Enlargement(Qwen2VLImageProcessor(), lambda image: {}).refuse(long)
    Enlargement(None, lambda image: {}).refuse(long)
    with pytest.raises(RowError, match="becomes 1128960000"):
        Enlargement(CLIPImageProcessor(size={"shortest_edge": 336}), lambda image: {}).refuse(long)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_odd_images_are_encoded_or_refused(family, size):
    found = None
    with suppress(RowError):
        found = encode(prompts(family).encoder(), Image.new("RGB", size))
    assert found is None or found.n_bytes < 1 << 20
    assert found or max(size) > 1


@pytest.mark.parametrize("family", ["SmolVLM", "InternVL"])
def test_many_small_images_that_become_many_tiles(family):
    """One of each size is processed, which says what all of them take."""
    encoder, calls = counting(prompts(family))
    sizes = [(4, 2), (1, 1)]
    one_each = [encode(encoder, Image.new("RGB", size)).inputs for size in sizes]
    many = [Image.new("RGB", size) for size in sizes * 20]
    assert len(encode(encoder, *many).images) == 40
    assert sorted(calls) == [1, 1, 1, 1, 40]
    n_pixels = [inputs["pixel_values"].numel() // 3 for inputs in one_each]
    made = dict(zip(sizes, one_each, strict=True))
    found = Enlargement(None, lambda image: made[image.size], max_pixels=2 * 20 * sum(n_pixels))
    found.refuse(many)
    with pytest.raises(RowError, match="one of 1x1 becomes"):
        found.refuse([*many, *[Image.new("RGB", (1, 1))] * 2])


def test_few_images_are_processed_once():
    encoder, calls = counting(prompts("InternVL"))
    encode(encoder, *[Image.new("RGB", (4, 4))] * 8)
    assert calls == [8]


def test_a_size_is_processed_once():
    sizes = []

    def process(image):
        sizes.append(image.size)
        return {"pixel_values": torch.zeros(image.size), "ids": torch.zeros(9).long()}

    found = Enlargement(None, process)
    for _ in range(3):
        found.refuse([Image.new("RGB", (n % 3 + 1, 3)) for n in range(9)])
    assert sorted(sizes) == [(1, 3), (2, 3), (3, 3)]
