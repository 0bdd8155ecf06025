"""Equal images of a batch are encoded once, with the scores that encoding each of them gives."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.modeling import sharing
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.sharing import image_cost, shared_images
from tests.families import FAMILIES

SHARING = ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "LLaVA", "LLaVA-NeXT", "InternVL", "Idefics3", "SmolVLM", "Gemma 3"]
NOT_SHARING = ["Mllama", "Phi-4 multimodal", "Llama 4"]
LARGEST = 1e-5


def owner_of(model: nn.Module) -> nn.Module:
    return next(module for module in reversed(list(model.modules())) if hasattr(module, "get_image_features"))


def count_images(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of `get_image_features` is given, from now on."""
    kind = type(owner_of(model))
    original = kind.get_image_features
    calls: list[int] = []

    def counted(self: nn.Module, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        grid = kwargs.get("image_grid_thw", args[0] if args else None)
        calls.append(len(grid) if isinstance(grid, torch.Tensor) and grid.ndim == 2 else len(pixel_values))
        return original(self, pixel_values, *args, **kwargs)

    counted.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "get_image_features", counted)
    return calls


@pytest.mark.parametrize("name", SHARING)
def test_same_scores_from_fewer_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    model = family.build()
    inputs, labels = family.inputs("right", (0, 1, 0, 0, 1))
    sharing._can_share[owner_of(model)] = False
    expected = score_batch(model, inputs, labels, MaskSettings.paper())
    del sharing._can_share[owner_of(model)]
    first = score_batch(model, inputs, labels, MaskSettings.paper())
    calls = count_images(model, monkeypatch)
    second = score_batch(model, inputs, labels, MaskSettings.paper())
    assert calls == [2]
    for score in (first, second):
        assert (score.loss - expected.loss).abs().max() < LARGEST
        assert (score.delta - expected.delta).abs().max() < LARGEST
    assert "get_image_features" not in vars(owner_of(model))


@pytest.mark.parametrize("name", NOT_SHARING)
def test_others_are_left_alone(name: str) -> None:
    family = FAMILIES[name]
    if family.is_broken:
        pytest.skip(family.notes)
    model = family.build()
    together = score_batch(model, *family.inputs("right", (0, 1, 0)), MaskSettings.paper())
    apart = score_batch(model, *family.inputs("right", (0, 1)), MaskSettings.paper())
    assert (together.delta[:2] - apart.delta).abs().max() < LARGEST


class Tower(nn.Module):
    """Stands in for a model; `factor` makes the features depend on how many images there are."""

    def __init__(self, factor: float = 0.0):
        super().__init__()
        self.factor = factor
        self.n_images: list[int] = []

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.n_images.append(len(pixel_values))
        return pixel_values.flatten(1) * (1 + self.factor * len(pixel_values))


def test_images_alike_in_sum_are_told_apart() -> None:
    tower = Tower()
    image = torch.randn(3, 4, 4)
    pixels = torch.stack([image, image.flip(0), image, image.flip(-1)])
    with shared_images(tower):
        for _ in range(2):
            features = tower.get_image_features(pixels)
    assert torch.equal(features, pixels.flatten(1))


def test_features_that_depend_on_the_batch_are_never_shared() -> None:
    tower = Tower(factor=0.1)
    pixels = torch.randn(1, 3, 4, 4).expand(3, -1, -1, -1)
    for _ in range(2):
        with shared_images(tower):
            features = tower.get_image_features(pixels)
        assert torch.equal(features, pixels.flatten(1) * 1.3)
    assert tower.n_images == [1, 3, 3]


def test_the_method_is_restored_after_an_exception() -> None:
    tower = Tower()
    with pytest.raises(RuntimeError), shared_images(tower):
        tower.get_image_features(torch.zeros(2, 2)).view(-7)
    assert "get_image_features" not in vars(tower)


def test_the_cost_of_images_is_by_weights() -> None:
    vlm, text = FAMILIES["LLaVA"].build(), FAMILIES["Llama"].build()
    anatomy = examine(vlm)
    parts = (vlm.model.vision_tower, vlm.model.multi_modal_projector)
    n_vision = sum(weight.numel() for part in parts for weight in part.parameters())
    n_blocks = sum(weight.numel() for weight in anatomy.blocks.parameters())
    assert image_cost(anatomy) == pytest.approx(n_vision / n_blocks)
    assert image_cost(examine(text)) == 0
