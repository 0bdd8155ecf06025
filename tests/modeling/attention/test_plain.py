"""Plain attention, and the sums from a log-sum-exp, against the definition."""

import pytest
import torch

from delta_attnmask.modeling.attention import plain
from delta_attnmask.modeling.attention.plain import attend, column_sums
from tests.modeling.attention.inputs import MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
GROUPED = Shape(n_key_heads=2)


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
@pytest.mark.parametrize("cache_elements", [1, 1 << 18], ids=["small-tiles", "large-tiles"])
def test_column_sums_are_the_definition(kind: MaskKind, cache_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_CACHE_ELEMENTS", cache_elements)
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
