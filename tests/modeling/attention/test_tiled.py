"""Attention in tiles against the definition, for every kind of mask."""

import pytest
import torch

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.attention import plain
from delta_attnmask.modeling.attention.received import wants_tiles
from delta_attnmask.modeling.attention.tiled import tiled_attend
from tests.modeling.attention.inputs import AttentionInputs, MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
SHAPES = {
    "heads": Shape(),
    "grouped": Shape(n_key_heads=1, head_dim=20),
    "one pool": Shape(n_pools=1, seq=33),
    "one token": Shape(seq=1),
}


def attend(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return tiled_attend(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.mask,
        inputs.weights,
        scale=inputs.scale,
        is_causal=inputs.is_causal,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("cache", [1 << 10, 1 << 18], ids=["one sample a tile", "many samples"])
def test_equals_the_definition(kind: MaskKind, shape: Shape, cache: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_CACHE_ELEMENTS", cache)
    inputs = draw(shape, kind)
    output, received = attend(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


def test_queries_that_may_attend_to_nothing_give_zeros() -> None:
    inputs = draw(Shape(), "padded")
    assert inputs.mask is not None
    inputs.mask[:, :, 5] = False
    output, received = attend(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert (output[:, :, 5] == 0).all()
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


def test_large_scores_stay_finite() -> None:
    inputs = draw(Shape())
    inputs.query.mul_(1e4)
    output, received = attend(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert error(output, expected) < 1e-3  # scores of 1e5 in float32
    assert error(received, expected_received) < 1e-3


def test_values_may_have_another_size() -> None:
    inputs = draw(Shape(), "padded")
    narrow = inputs.value[..., :5]
    output, _ = tiled_attend(
        inputs.query, inputs.key, narrow, inputs.mask, inputs.weights, scale=inputs.scale, is_causal=False
    )
    assert error(output, by_definition(inputs)[0][..., :5]) < 1e-5


def test_tiles_are_for_single_precision_on_a_cpu() -> None:
    query = torch.empty(1, 1, 1, 1)
    assert wants_tiles("auto", query)
    assert not wants_tiles("auto", query.bfloat16())
    for other in (query.bfloat16(), query.to("meta")):
        with pytest.raises(SettingsError, match="is for float32 on CPUs"):
            wants_tiles("tiled", other)
