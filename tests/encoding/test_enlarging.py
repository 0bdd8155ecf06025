"""Rows whose images a processor would make far more of than their files say are refused before it is called."""

from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor

from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.encoding.processing import Enlargement, find_shorter_side
from delta_attnmask.errors import RowError
from tests.reading.prompts import FAMILIES, Prompts, conversation, llava


@cache
def prompts(family: str) -> Prompts:
    return FAMILIES[family]()


def encode(encoder: Encoder, *images: Image.Image) -> Any:
    return encoder.encode(conversation((None,) * len(images), "A cat."), images)


def llava_at(edge: int) -> Encoder:
    found = llava()
    found.processor.image_processor = CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
    )
    return found.encoder()


def count_calls(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the processor is given."""
    calls: list[int] = []
    run = encoder._processing.run
    monkeypatch.setattr(encoder._processing, "run", lambda prompt: (calls.append(len(prompt.images)), run(prompt))[1])
    return calls


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 10_000)])
def test_one_long_image(size, monkeypatch):
    encoder = llava_at(336)
    calls = count_calls(encoder, monkeypatch)
    with pytest.raises(RowError, match=rf"more than 200000000 pixels .*one of {size[0]}x{size[1]} becomes \d{{9,}}"):
        encode(encoder, Image.new("RGB", size))
    assert not calls


def test_images_that_are_long_together(monkeypatch):
    encoder = llava_at(56)
    one = Image.new("RGB", (1, 2000))
    assert encode(encoder, one).inputs["pixel_values"].shape == (1, 3, 56, 56)
    calls = count_calls(encoder, monkeypatch)
    with pytest.raises(RowError, match="pixels of the row's images"):
        encode(encoder, *[one] * 40)
    assert not calls


def test_padding_to_a_square_counts():
    found = Enlargement(LlavaImageProcessor(do_pad=True), lambda image: {})
    found.refuse([Image.new("RGB", (10, 10_000))])
    with pytest.raises(RowError, match="becomes 225000000"):
        found.refuse([Image.new("RGB", (100, 15_000))])


def test_the_number_of_pixels_is_no_edge():
    """Qwen's `shortest_edge` is a number of pixels, and its `longest_edge` bounds what comes of an image."""
    assert find_shorter_side(Qwen2VLImageProcessor()) == 0
    assert find_shorter_side(CLIPImageProcessor(size={"shortest_edge": 336})) == 336
    assert find_shorter_side(None) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_odd_images_are_encoded_or_refused(family, size):
    found = None
    with suppress(RowError):
        found = encode(prompts(family).encoder(), Image.new("RGB", size))
    assert found is None or found.n_bytes < 1 << 20
    assert found or max(size) > 1


@pytest.mark.parametrize("family", ["SmolVLM", "InternVL"])
def test_many_small_images_that_become_many_tiles(family, monkeypatch):
    """One of each size is processed, which says what all of them take."""
    encoder = prompts(family).encoder()
    small, wide = Image.new("RGB", (1, 1)), Image.new("RGB", (4, 2))
    n_pixels = [encode(encoder, image).inputs["pixel_values"].numel() // 3 for image in (small, wide)]
    calls = count_calls(encoder, monkeypatch)
    monkeypatch.setattr(encoder._enlargement, "_max_made", 20 * sum(n_pixels))
    assert len(encode(encoder, *[small, wide] * 20).images) == 40
    assert sorted(calls) == [1, 1, 40]
    calls.clear()
    with pytest.raises(RowError, match="one of 1x1 becomes"):
        encode(encoder, *[wide] * 20, *[small] * 22)
    assert not calls


def test_few_images_are_processed_once(monkeypatch):
    encoder = prompts("InternVL").encoder()
    calls = count_calls(encoder, monkeypatch)
    encode(encoder, *[Image.new("RGB", (4, 4))] * 8)
    assert calls == [8]


def test_sizes_are_forgotten_before_there_are_too_many(monkeypatch):
    monkeypatch.setattr("delta_attnmask.encoding.processing._MAX_SIZES", 10)
    found = Enlargement(None, lambda image: {"pixel_values": torch.zeros(image.size), "ids": torch.zeros(9).long()})
    for first in (1, 20):
        found.refuse([Image.new("RGB", (first + n, 3)) for n in range(9)])
    assert len(found._made) <= 10
    assert found._made[28, 3] == 28
