"""Where image tokens lie: against the families' own layouts, and against what changes when an object is drawn."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import LlavaImageProcessor

from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.inspecting.image_grids import image_grids
from delta_attnmask.inspecting.inspection import Box
from delta_attnmask.inspecting.inspection_page import render_fragment
from delta_attnmask.inspecting.inspector import Inspector
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.running import run_up_to, with_positions
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import Record
from delta_attnmask.settings import MaskSettings
from tests.inspecting.models import MODELS
from tests.reading.prompts import conversation

RECORD = conversation((None, "What is it?"), "A cat.")
WHOLE = Box(0, 0, 1, 1)
OBJECT = Box(0.55, 0.15, 0.95, 0.6)
_HOT = 100.0  # times the attention of the other tokens


def grids(loaded: LoadedModel, *sizes: tuple[int, int], record: Record = RECORD) -> list[list[Box]]:
    sample = make_encoder(loaded).encode(record, [Image.new("RGB", size) for size in sizes])
    return image_grids(loaded, sample.inputs, sample.n_image_tokens, sizes)


def grid(n_columns: int, n_rows: int, within: Box = WHOLE) -> list[Box]:
    """Equal cells in reading order."""
    width, height = (within.right - within.left) / n_columns, (within.bottom - within.top) / n_rows
    corners = [(within.left + c * width, within.top + r * height) for r, c in product(range(n_rows), range(n_columns))]
    return [Box(x, y, x + width, y + height) for x, y in corners]


LAYOUTS: dict[tuple[str, tuple[int, int]], list[Box]] = {
    ("Qwen2-VL", (160, 96)): grid(10, 6),  # cells of 16 px: two by two patches of 8
    ("Qwen2-VL", (100, 70)): grid(6, 4),  # resized to 96x64
    ("Qwen2-VL", (300, 900)): grid(5, 17),  # scaled down to the most pixels, 80x272
    ("LLaVA", (32, 32)): grid(4, 4),
    ("LLaVA", (64, 32)): grid(4, 4, Box(0.25, 0, 0.75, 1)),  # the centre is cut out
    ("LLaVA", (30, 90)): grid(4, 4, Box(0, 1 / 3, 1, 2 / 3)),
    ("Gemma 3", (90, 50)): grid(2, 2),
}


@pytest.mark.parametrize(("family", "size"), LAYOUTS)
def test_tokens_lie_where_the_family_puts_them(family: str, size: tuple[int, int]) -> None:
    (found,) = grids(MODELS[family](), size)
    expected = LAYOUTS[family, size]
    assert len(found) == len(expected)
    assert torch.tensor(found).sub(torch.tensor(expected)).abs().max() < 1e-6


def test_neighbours_share_their_edges() -> None:
    (boxes,) = grids(MODELS["Qwen2-VL"](), (160, 96))
    assert len({box.left for box in boxes}) == 10
    assert {box.right for box in boxes} - {box.left for box in boxes} == {1.0}


@pytest.mark.parametrize("family", ["Qwen2-VL", "LLaVA"])
def test_each_token_knows_its_picture(family: str) -> None:
    record = conversation((None, "and", None, "Same?"), "No.")
    sizes = [len(boxes) for boxes in grids(MODELS[family](), (64, 32), (32, 96), record=record)]
    assert sizes == ([4 * 2, 2 * 6] if family == "Qwen2-VL" else [16, 16])


@pytest.mark.parametrize("family", ["LLaVA-NeXT", "SmolVLM", "InternVL", "Idefics2"])
def test_tiles_and_resamplers_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModelError, match="regular grid"):
        grids(MODELS[family](), (64, 64))


def test_a_processor_that_pads_is_refused() -> None:
    llava = MODELS["LLaVA"]()
    before = llava.processor.image_processor
    llava.processor.image_processor = LlavaImageProcessor(
        do_pad=True, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    try:
        with pytest.raises(UnsupportedModelError, match="pads the images or cuts them into tiles"):
            grids(llava, (120, 40))
    finally:
        llava.processor.image_processor = before


def features(loaded: LoadedModel, image: Image.Image) -> Tensor:
    """What the decoder is given for each image token, `[token, hidden]`."""
    anatomy = examine(loaded.model)
    inputs: dict[str, Any] = dict(with_positions(loaded.model, make_encoder(loaded).encode(RECORD, [image]).inputs))
    with torch.no_grad():
        args, kwargs = run_up_to(loaded.model, inputs, anatomy.blocks[0])
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states[inputs["input_ids"] == anatomy.image_token_id]


def draw(size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """A picture without the object, and with it."""
    without = Image.effect_noise(size, 40).convert("RGB")
    drawn = without.copy()
    corners = [round(share * side) for share, side in zip(OBJECT, size * 2, strict=True)]
    ImageDraw.Draw(drawn).rectangle([corners[0], corners[1], corners[2] - 1, corners[3] - 1], fill="yellow")
    return without, drawn


def share(cell: Box, region: Box) -> float:
    """How much of the cell lies in the region."""
    width = min(cell.right, region.right) - max(cell.left, region.left)
    height = min(cell.bottom, region.bottom) - max(cell.top, region.top)
    area = (cell.right - cell.left) * (cell.bottom - cell.top)
    return max(0.0, width) * max(0.0, height) / area


@pytest.mark.parametrize("family", ["Qwen2-VL", "LLaVA"])
@pytest.mark.parametrize("size", [(128, 128), (150, 90)])
def test_tokens_that_change_most_with_an_object_lie_on_it(family: str, size: tuple[int, int]) -> None:
    loaded = MODELS[family]()
    without, with_object = draw(size)
    change = (features(loaded, with_object) - features(loaded, without)).norm(dim=-1)
    (boxes,) = grids(loaded, size)
    covered = torch.tensor([share(box, OBJECT) for box in boxes])
    n_covered = int((covered > 0.5).sum())
    assert n_covered >= 2
    assert (covered[change.argsort(descending=True)[:n_covered]] > 0).all()


def hot_boxes(html: str) -> list[Box]:
    """The drawn rectangles that are warmer than the average, in shares of the picture."""
    svg = re.findall(r"<svg.*?</svg>", html, re.DOTALL)[1]
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
    found = re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" class="heat heat(\d)"', svg)
    numbers = [tuple(map(float, one)) for one in found]
    return [Box(x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h, heat in numbers if heat > 3]


@pytest.mark.parametrize("size", [(160, 96), (90, 150)])
def test_the_drawn_rectangles_lie_over_the_object(tmp_path: Path, size: tuple[int, int]) -> None:
    """From pixels to the page: attention planted on the tokens that the object changes is drawn over the object."""
    loaded = MODELS["Qwen2-VL"]()
    without, with_object = draw(size)
    change = (features(loaded, with_object) - features(loaded, without)).norm(dim=-1)
    with_object.save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}]))
    found = Inspector(loaded, FileRows(tmp_path / "data.json", tmp_path), MaskSettings.paper()).inspect_rows([0])[0]
    hottest = set(change.argsort(descending=True)[:4].tolist())
    saliency = tuple(_HOT if number in hottest else 1.0 for number in range(len(change)))

    boxes = hot_boxes(str(render_fragment(replace(found, image_saliency=saliency))))

    assert len(boxes) == 4
    assert all(share(box, OBJECT) > 0 for box in boxes)
