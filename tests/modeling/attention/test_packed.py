"""Vision towers that lay all images behind each other attend to them in one call."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from delta_attnmask.modeling.attention.packed import PACKED, packed_attention, packed_vision
from tests.families import FAMILIES
from tests.modeling.attention.devices import DEVICES, NEEDS_CUDA
from tests.modeling.attention.inputs import error


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
        with packed_vision(model, model.config.text_config):
            assert model.config.vision_config._attn_implementation == PACKED
            found = torch.cat(model.model.get_image_features(**images).pooler_output)
    assert error(found, expected.double()) < 1e-5
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert PACKED not in AttentionInterface._global_mapping
