"""Attention in tiles, with what each token receives of it, against the definition."""

import pytest
import torch

from delta_attnmask.modeling import plain_attention
from delta_attnmask.modeling.plain_attention import attend
from tests.modeling.attention_inputs import AttentionInputs, MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
SHAPES = {
    "heads": Shape(),
    "grouped": Shape(n_key_heads=1, head_dim=20),
    "one pool": Shape(n_pools=1, seq=200),
    "one token": Shape(seq=1),
}


@pytest.fixture(params=[1, 1 << 10, 1 << 18], ids=["small tiles", "one sample a tile", "many samples"])
def _each_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_attention, "_CPU_ELEMENTS", request.param)


def in_tiles(inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor]:
    output, received = attend(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.mask,
        scale=inputs.scale,
        is_causal=inputs.is_causal,
        weights=inputs.weights,
    )
    assert received is not None
    return output, received


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.usefixtures("_each_cache")
def test_is_the_definition(kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind)
    output, received = in_tiles(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert error(output, expected) < 1e-5
    assert error(received, expected_received) < 1e-5


def test_softcaps_and_sinks_are_those_of_eager_attention() -> None:
    inputs, sinks = draw(Shape(n_key_heads=2), "window"), torch.randn(4)
    output, received = attend(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.mask,
        scale=4 * inputs.scale,
        is_causal=False,
        weights=inputs.weights,
        softcap=1.5,
        sinks=sinks,
    )
    key, value = (states.double().repeat_interleave(2, 1) for states in (inputs.key, inputs.value))
    scores = 1.5 * torch.tanh(inputs.query.double() @ key.mT * 4 * inputs.scale / 1.5)
    assert inputs.mask is not None
    scores = scores.masked_fill(~inputs.mask, -torch.inf)
    column = sinks.double().view(1, -1, 1, 1).expand(3, -1, inputs.query.shape[2], 1)
    shares = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    assert error(output, shares @ value) < 1e-5
    assert received is not None
    assert error(received, torch.einsum("bhqk,bpq->bpk", shares, inputs.weights.double()) / 4) < 1e-5


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


def test_values_may_have_another_size_and_queries_another_number() -> None:
    inputs = draw(Shape(), "padded")
    assert inputs.mask is not None
    expected = by_definition(inputs)[0]
    narrow, some = inputs.value[..., :5], slice(10, 20)
    output, _ = attend(
        inputs.query[:, :, some], inputs.key, narrow, inputs.mask[:, :, some], scale=inputs.scale, is_causal=False
    )
    assert error(output, expected[:, :, some, :5]) < 1e-5


def test_half_precision_is_computed_in_single_on_a_cpu() -> None:
    inputs = draw(Shape(seq=300), dtype=torch.bfloat16)
    output, received = in_tiles(inputs)
    expected, _, expected_received = by_definition(inputs)
    assert output.dtype == torch.bfloat16
    assert error(output, expected) < 4e-3
    assert error(received, expected_received) < 1e-5
