"""Which code sums the attention received, and the sum over blocks."""

import pytest
import torch

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.attention.received import ReceivedAttention, wants_triton
from tests.modeling.attention.inputs import Shape, by_definition, draw, error


def test_the_mean_is_over_blocks() -> None:
    first, second = draw(Shape()), draw(Shape())
    second = type(second)(**{**vars(second), "weights": first.weights})
    total = ReceivedAttention(first.weights)
    for inputs in (first, second):
        _, lse, _ = by_definition(inputs)
        total.add_columns(inputs.query, inputs.key, lse, None, scale=inputs.scale, is_causal=True)
    expected = (by_definition(first)[2] + by_definition(second)[2]) / 2
    assert total.n_blocks == 2
    assert error(total.mean(), expected) < 1e-5


def test_triton_is_refused_without_a_gpu() -> None:
    with pytest.raises(SettingsError, match="needs an NVIDIA GPU"):
        wants_triton("triton", torch.device("cpu"))
    assert not wants_triton("auto", torch.device("cpu"))
