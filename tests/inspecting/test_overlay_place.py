"""From pixels to the drawn rectangle: attention planted on an object's tokens is drawn over the object.

Which tokens are the object's is told by their features, which change when it is drawn; where they lie is told by
`cells.py`, which never sees the object.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from delta_attnmask.inspecting import inspect
from delta_attnmask.inspecting.inspect import Inspector
from delta_attnmask.inspecting.inspection import Box
from delta_attnmask.inspecting.page import render_fragment
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.settings import MaskSettings
from tests.inspecting.models import MODELS
from tests.inspecting.test_cells import features, grown, share

OBJECT = Box(0.58, 0.15, 0.9, 0.42)
_HOT = 100.0  # times the attention of the other tokens
_RESAMPLING = 0.02  # of the largest change; so far the blur of a shrunken object reaches into the token beside it


def draw(size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """A picture without the object, and with it."""
    without = Image.effect_noise(size, 40).convert("RGB")
    drawn = without.copy()
    corners = [round(share * side) for share, side in zip(OBJECT, size * 2, strict=True)]
    ImageDraw.Draw(drawn).rectangle([corners[0], corners[1], corners[2] - 1, corners[3] - 1], fill="yellow")
    return without, drawn


def plant(monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel, is_object: Tensor) -> None:
    """Let the object's image tokens receive most of the attention."""
    real = inspect.score_batch

    def score(model: Any, inputs: Any, labels: Tensor, settings: MaskSettings, **options: Any) -> Any:
        found = real(model, inputs, labels, settings, **options)
        saliency = torch.ones_like(found.saliency)
        saliency[inputs["input_ids"] == loaded.model.config.image_token_id] += _HOT * is_object
        return replace(found, saliency=saliency)

    monkeypatch.setattr(inspect, "score_batch", score)


def hot_boxes(html: str) -> list[list[Box]]:
    """For each drawn view the rectangles that are warmer than the average, in shares of the picture."""
    views = []
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)[1:]:
        width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
        found = re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" class="heat heat(\d)"', svg)
        numbers = [tuple(map(float, one)) for one in found]
        views.append(
            [Box(x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h, heat in numbers if heat > 3]
        )
    return views


@pytest.mark.parametrize(("family", "n_views"), [("Qwen2-VL", 1), ("SmolVLM", 2)])
@pytest.mark.parametrize("size", [(160, 96), (90, 150)])
def test_the_rectangles_lie_over_the_object(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str, n_views: int, size: tuple[int, int]
) -> None:
    loaded = MODELS[family]()
    without, drawn = draw(size)
    change = (features(loaded, drawn) - features(loaded, without)).abs().amax(-1)
    plant(monkeypatch, loaded, change > _RESAMPLING * change.max())
    drawn.save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}]))
    dataset = Dataset(tmp_path / "data.json", tmp_path)

    inspection = Inspector(loaded, dataset, MaskSettings.paper()).inspect_rows([0])[0]
    views = hot_boxes(str(render_fragment(inspection).html))

    assert len(views) == n_views
    for boxes in views:
        assert sum(share(OBJECT, box) for box in boxes) > 0.97, "they cover the object"
        assert all(share(box, grown(OBJECT, 0.03)) > 0 for box in boxes), "and none lies beside it"
