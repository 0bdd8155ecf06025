"""Plain attention, in chunks and in tiles, and the sums from a log-sum-exp, against the definition."""

import pytest
import torch

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling import plain_attention
from delta_attnmask.modeling.kernels import wants_tiles
from delta_attnmask.modeling.plain_attention import attend, column_sums, tiled_attend
from tests.modeling.attention_inputs import AttentionInputs, MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
GROUPED = Shape(n_key_heads=2)


@pytest.fixture(params=[1, 1 << 10, 1 << 18], ids=["small tiles", "one sample a tile", "many samples"])
def _each_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_attention, "_CACHE_ELEMENTS", request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [Shape(), GROUPED, Shape(batch=1, seq=1), Shape(n_pools=1, seq=200)], ids=str)
def test_attend_is_the_definition(kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind)
    output, received = attend(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.mask,
        scale=inputs.scale,
        is_causal=inputs.is_causal,
        weights=inputs.weights,
    )
    expected, _, expected_received = by_definition(inputs)
    assert received is not None
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("_each_cache")
def test_column_sums_are_the_definition(kind: MaskKind) -> None:
    inputs = draw(GROUPED, kind)
    _, lse, expected = by_definition(inputs)
    received = column_sums(
        inputs.query, inputs.key, lse, inputs.mask, inputs.weights, scale=inputs.scale, is_causal=inputs.is_causal
    )
    assert error(received, expected) < 1e-5


def test_queries_that_count_nowhere_may_have_any_log_sum_exp() -> None:
    inputs = draw(Shape())
    _, lse, expected = by_definition(inputs)
    is_counted = (inputs.weights != 0).any(1)
    for poison in (-torch.inf, torch.inf, torch.nan):
        poisoned = lse.masked_fill(~is_counted[:, None], poison)
        received = column_sums(
            inputs.query, inputs.key, poisoned, None, inputs.weights, scale=inputs.scale, is_causal=True
        )
        assert error(received, expected) < 1e-5


def test_nothing_counted_gives_zeros() -> None:
    inputs = draw(Shape())
    _, lse, _ = by_definition(inputs)
    weights = torch.zeros_like(inputs.weights)
    received = column_sums(inputs.query, inputs.key, lse, None, weights, scale=inputs.scale, is_causal=True)
    assert not received.any()


def test_a_half_precision_input_is_summed_in_single() -> None:
    inputs = draw(Shape(seq=300), dtype=torch.bfloat16)
    _, lse, expected = by_definition(inputs)
    received = column_sums(inputs.query, inputs.key, lse, None, inputs.weights, scale=inputs.scale, is_causal=True)
    assert error(received, expected) < 1e-5


SHAPES = {
    "heads": Shape(),
    "grouped": Shape(n_key_heads=1, head_dim=20),
    "one pool": Shape(n_pools=1, seq=33),
    "one token": Shape(seq=1),
}


def in_tiles(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
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
@pytest.mark.usefixtures("_each_cache")
def test_tiles_equal_the_definition(kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind)
    output, received = in_tiles(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


def test_queries_that_may_attend_to_nothing_give_zeros() -> None:
    inputs = draw(Shape(), "padded")
    assert inputs.mask is not None
    inputs.mask[:, :, 5] = False
    output, received = in_tiles(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert (output[:, :, 5] == 0).all()
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


def test_large_scores_stay_finite() -> None:
    inputs = draw(Shape())
    inputs.query.mul_(1e4)
    output, received = in_tiles(inputs)
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
