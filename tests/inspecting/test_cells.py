"""Where image tokens lie: against the families' own layouts, and against what changes when an object is drawn."""

from itertools import product
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import AttentionInterface

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.inspecting.cells import Place, token_places
from delta_attnmask.inspecting.inspection import Box
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.origins import states_before_blocks
from delta_attnmask.modeling.positions import with_positions
from delta_attnmask.records import Record
from delta_attnmask.scoring.setup import make_encoder
from tests.inspecting.models import MODELS
from tests.reading.prompts import conversation

RECORD = conversation((None, "What is it?"), "A cat.")
TOLERANCE = 0.02  # of the picture's side
WHOLE = Box(0, 0, 1, 1)


def places(loaded: LoadedModel, *sizes: tuple[int, int], record: Record = RECORD) -> list[Place | None]:
    return token_places(loaded, make_encoder(loaded), record, [Image.new("RGB", size) for size in sizes])


def grid(n_columns: int, n_rows: int, within: Box = WHOLE) -> list[Box]:
    """Equal cells in reading order."""
    width, height = (within.right - within.left) / n_columns, (within.bottom - within.top) / n_rows
    corners = [(within.left + c * width, within.top + r * height) for r, c in product(range(n_rows), range(n_columns))]
    return [Box(x, y, x + width, y + height) for x, y in corners]


def tiles(n_columns: int, n_rows: int, side: int) -> list[Box]:
    """Tiles in reading order, each with `side` times `side` cells."""
    return [cell for tile in grid(n_columns, n_rows) for cell in grid(side, side, tile)]


LAYOUTS: dict[tuple[str, tuple[int, int]], list[Box]] = {
    ("Qwen2-VL", (160, 96)): grid(10, 6),  # cells of 16 px: two by two patches of 8
    ("Qwen2-VL", (100, 70)): grid(6, 4),  # resized to 96x64
    ("Qwen2-VL", (300, 900)): grid(5, 17),  # scaled down to the most pixels, 80x272
    ("LLaVA", (32, 32)): grid(4, 4),
    ("LLaVA", (64, 32)): grid(4, 4, Box(0.25, 0, 0.75, 1)),  # the centre is cut out
    ("LLaVA", (30, 90)): grid(4, 4, Box(0, 1 / 3, 1, 2 / 3)),
    ("SmolVLM", (128, 96)): [*tiles(4, 3, 2), *grid(2, 2)],  # tiles of 32 px, then the whole picture
    ("SmolVLM", (50, 100)): [*tiles(2, 4, 2), *grid(2, 2)],
    ("InternVL", (64, 32)): [*tiles(2, 1, 2), *grid(2, 2)],
    ("LLaVA-NeXT", (64, 64)): [*grid(4, 4), *grid(8, 8)],  # the whole picture first
    ("Gemma 3", (90, 50)): grid(2, 2),
}


@pytest.mark.parametrize(("family", "size"), LAYOUTS)
def test_tokens_lie_where_the_family_puts_them(family: str, size: tuple[int, int]) -> None:
    found = [place.box for place in places(MODELS[family](), size) if place is not None]
    expected = LAYOUTS[family, size]
    assert len(found) == len(expected)
    assert torch.tensor(found).sub(torch.tensor(expected)).abs().max() < TOLERANCE


def test_tokens_that_show_nothing_have_no_place() -> None:
    """LLaVA-NeXT ends each row of the unpadded tiles with a token of its own."""
    found = places(MODELS["LLaVA-NeXT"](), (64, 64))
    rows = found[16:]
    assert [place is None for place in rows] == ([False] * 8 + [True]) * 8


def test_neighbours_share_their_edges() -> None:
    boxes = [place.box for place in places(MODELS["Qwen2-VL"](), (160, 96)) if place is not None]
    assert len({box.left for box in boxes}) == 10
    assert {box.right for box in boxes} - {box.left for box in boxes} == {max(box.right for box in boxes)}


def test_each_token_knows_its_picture() -> None:
    record = conversation((None, "and", None, "Same?"), "No.")
    found = places(MODELS["Qwen2-VL"](), (64, 32), (32, 96), record=record)
    assert [place.picture for place in found if place is not None] == [0] * (4 * 2) + [1] * (2 * 6)


def features(loaded: LoadedModel, image: Image.Image) -> Tensor:
    """What the decoder is given for each image token, `[token, hidden]`; each is made of its own patches alone."""
    anatomy = examine(loaded.model)
    inputs: dict[str, Any] = dict(with_positions(loaded.model, make_encoder(loaded).encode(RECORD, [image]).inputs))
    return states_before_blocks(anatomy, inputs)[inputs["input_ids"] == anatomy.image_token_id].detach()


@pytest.mark.parametrize("family", ["Qwen2-VL", "LLaVA", "SmolVLM", "InternVL", "LLaVA-NeXT"])
@pytest.mark.parametrize("size", [(128, 128), (150, 90)])
def test_tokens_that_change_with_an_object_are_those_whose_cells_it_touches(family: str, size: tuple[int, int]) -> None:
    loaded = MODELS[family]()
    without = Image.effect_noise(size, 40).convert("RGB")
    drawn = Box(0.42, 0.3, 0.74, 0.64)
    with_object = without.copy()
    corners = [drawn.left * size[0], drawn.top * size[1], drawn.right * size[0], drawn.bottom * size[1]]
    ImageDraw.Draw(with_object).rectangle([round(value) for value in corners], fill="yellow")

    change = (features(loaded, with_object) - features(loaded, without)).abs().amax(-1)
    found = places(loaded, size)
    covered = [share(place.box, drawn) if place else 0.0 for place in found]
    near = [share(place.box, grown(drawn, 0.03)) if place else 0.0 for place in found]
    assert min(float(change[i]) for i, part in enumerate(covered) if part > 0.2) > 1e-2
    assert max(float(change[i]) for i, part in enumerate(near) if part == 0) < 1e-4  # resampling blurs the edge
    assert sum(part > 0.2 for part in covered) >= 2


def share(cell: Box, region: Box) -> float:
    """How much of the cell lies in the region."""
    width = min(cell.right, region.right) - max(cell.left, region.left)
    height = min(cell.bottom, region.bottom) - max(cell.top, region.top)
    return max(0.0, width) * max(0.0, height) / cell.area


def grown(box: Box, by: float) -> Box:
    return Box(box.left - by, box.top - by, box.right + by, box.bottom + by)


def test_mixtures_of_patches_are_refused_and_attention_is_restored() -> None:
    before = dict(AttentionInterface._global_mapping)
    with pytest.raises(UnsupportedModelError, match="cross-attention"):
        places(MODELS["Idefics2"](), (40, 30))
    assert dict(AttentionInterface._global_mapping) == before


def test_a_tower_that_mixes_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = MODELS["LLaVA"]()
    projector = type(loaded.model.model.multi_modal_projector)
    plain = projector.forward
    monkeypatch.setattr(projector, "forward", lambda self, states: plain(self, states + states.flip(1)))
    with pytest.raises(UnsupportedModelError, match="reach several image tokens"):
        places(loaded, (32, 32))


def test_bfloat16_places_the_same() -> None:
    loaded = MODELS["SmolVLM"]()
    exact = [place.box for place in places(loaded, (100, 70)) if place is not None]
    loaded.model.bfloat16()
    try:
        rounded = [place.box for place in places(loaded, (100, 70)) if place is not None]
    finally:
        loaded.model.float()
    assert torch.tensor(exact).sub(torch.tensor(rounded)).abs().max() < TOLERANCE
