"""The vision tower: attention to all images in one call, and equal images encoded once, with the same scores."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from delta_attnmask import MaskSettings
from delta_attnmask.modeling.anatomy import examine, owner_of
from delta_attnmask.modeling.vision import (
    PACKED,
    image_cost,
    linear_patches,
    packed_attention,
    packed_vision,
    shared_images,
)
from delta_attnmask.scoring.delta import sweep_batch
from tests.families import FAMILIES
from tests.modeling.attention_devices import DEVICES, NEEDS_CUDA
from tests.modeling.attention_inputs import error

SHARING = ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "LLaVA", "LLaVA-NeXT", "InternVL", "Idefics3", "SmolVLM", "Gemma 3"]
NOT_SHARING = ["Mllama", "Phi-4 multimodal", "Llama 4"]
IMAGE_OF = (0, 1, 0, 0, 1)
LARGEST = 1e-5


def count_images(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of `get_image_features` is given, from now on."""
    kind = type(owner_of(model, "get_image_features"))
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
    batch = *family.inputs("right", (0, 1, 0, 0, 1)), [MaskSettings.paper()]
    expected = sweep_batch(model, *batch).scores[0]
    calls = count_images(model, monkeypatch)
    first = sweep_batch(model, *batch, image_of=IMAGE_OF).scores[0]
    assert calls == [2, 5]  # both ways
    second = sweep_batch(model, *batch, image_of=IMAGE_OF).scores[0]
    assert calls == [2, 5, 2]
    for score in (first, second):
        assert (score.loss - expected.loss).abs().max() < LARGEST
        assert (score.delta - expected.delta).abs().max() < LARGEST
    assert "get_image_features" not in vars(owner_of(model, "get_image_features"))


@pytest.mark.parametrize("name", NOT_SHARING)
def test_others_are_left_alone(name: str) -> None:
    family = FAMILIES[name]
    if family.is_broken:
        pytest.skip(family.notes)
    model = family.build()
    together = sweep_batch(model, *family.inputs("right", (0, 1, 0)), [MaskSettings.paper()], image_of=(0, 1, 0))
    apart = sweep_batch(model, *family.inputs("right", (0, 1)), [MaskSettings.paper()])
    assert (together.scores[0].delta[:2] - apart.scores[0].delta).abs().max() < LARGEST


class Tower(nn.Module):
    """Stands in for a model; `factor` makes the features depend on how many images there are."""

    def __init__(self, factor: float = 0.0):
        super().__init__()
        self.factor = factor
        self.n_images: list[int] = []

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.n_images.append(len(pixel_values))
        return pixel_values.flatten(1) * (1 + self.factor * len(pixel_values))


def test_images_that_are_not_said_to_be_equal_are_all_encoded() -> None:
    tower, pixels = Tower(), torch.randn(1, 3, 4, 4).expand(3, -1, -1, -1)
    for image_of in (None, (0, 1, 2), (0, 0)):  # the last is of another batch
        with shared_images(tower, image_of):
            assert torch.equal(tower.get_image_features(pixels), pixels.flatten(1))
    assert tower.n_images == [3, 3, 3]


def test_features_that_depend_on_the_batch_are_never_shared() -> None:
    tower = Tower(factor=0.1)
    pixels = torch.randn(1, 3, 4, 4).expand(3, -1, -1, -1)
    for _ in range(2):
        with shared_images(tower, (0, 0, 0)):
            features = tower.get_image_features(pixels)
        assert torch.equal(features, pixels.flatten(1) * 1.3)
    assert tower.n_images == [1, 3, 3]


def test_the_method_is_restored_after_an_exception() -> None:
    tower = Tower()
    with pytest.raises(RuntimeError), shared_images(tower, (0, 0)):
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


def one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    parts = zip(*(states.double().split(lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(*part, scale=0.2) for part in parts], 2).transpose(1, 2)


def packed(lengths: list[int], head_dim: int, dtype: torch.dtype, device: str) -> float:
    states = torch.randn(3, sum(lengths), 2, head_dim, device=device).to(dtype)
    query, key, value = (part.transpose(0, 1)[None] for part in states)
    starts = torch.tensor([0, *lengths], device=device).cumsum(0)
    output, _ = packed_attention(
        nn.Module(), query, key, value, None, scaling=0.2, cu_seq_lens_q=starts, max_length_q=max(lengths)
    )
    return error(output, one_by_one(query, key, value, lengths))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [4, 9, 9, 1]], ids=str)
def test_each_image_attends_to_itself(device: str, lengths: list[int]) -> None:
    assert packed(lengths, 16, torch.float32, device) < 1e-5


@NEEDS_CUDA
@pytest.mark.parametrize("head_dim", [64, 72, 80, 20])
def test_half_precision(head_dim: int) -> None:
    assert packed([300, 64, 1, 300], head_dim, torch.bfloat16, "cuda") < 1e-2


@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "GLM-4V"])
def test_towers_give_the_same_features(name: str) -> None:
    family = FAMILIES[name]
    model: Any = family.build()
    inputs, _ = family.inputs("right", (0, 1, 0))
    images = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    with torch.no_grad():
        expected = torch.cat(model.model.get_image_features(**images).pooler_output)
        with packed_vision(examine(model)):
            assert model.config.vision_config._attn_implementation == PACKED
            found = torch.cat(model.model.get_image_features(**images).pooler_output)
    assert error(found, expected.double()) < 1e-5
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert PACKED not in AttentionInterface._global_mapping


@pytest.mark.parametrize("name", ["Qwen2-VL", "GLM-4V"])
def test_patches_are_embedded_by_a_matrix_product(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    model: Any = family.build()
    (convolution,) = (module for module in model.modules() if isinstance(module, nn.Conv3d))
    inputs, _ = family.inputs()
    images = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    with torch.no_grad():
        expected = torch.cat(model.model.get_image_features(**images).pooler_output)
        with linear_patches(examine(model)), monkeypatch.context() as patched:
            patched.setattr(nn.Conv3d, "forward", None)  # isn't called
            found = torch.cat(model.model.get_image_features(**images).pooler_output)
    assert error(found, expected.double()) < 1e-5
    assert "forward" not in vars(convolution)


@pytest.mark.parametrize(
    "options", [{"stride": 1}, {"stride": 2, "padding": 1}, {"stride": 2, "groups": 3}, {"stride": 2}]
)
def test_convolutions_that_see_more_than_a_patch_stay(options: dict[str, int]) -> None:
    model: Any = FAMILIES["Llama"].build()
    model.tower = nn.Conv3d(3, 6, 2, **options)
    frames = torch.randn(2, 3, 4, 4, 4)
    expected = model.tower(frames)
    with linear_patches(examine(model)):
        assert ("forward" in vars(model.tower)) == (options == {"stride": 2})
        assert torch.equal(model.tower(frames), expected)
