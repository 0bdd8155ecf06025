"""The Triton kernel against the definition. With TRITON_INTERPRET=1 it runs on the CPU."""

import pytest
import torch
from torch import Tensor

from delta_attnmask.modeling.kernels import ReceivedAttention, counted_spans
from tests.modeling.attention_devices import HAS_CUDA, NEEDS_CUDA, NEEDS_TRITON
from tests.modeling.attention_inputs import AttentionInputs, MaskKind, Shape, by_definition, draw, error

DEVICE = "cuda" if HAS_CUDA else "cpu"
KINDS: list[MaskKind] = ["none", "causal"]
# Head sizes that are and aren't powers of two; sequences below, at and beyond a tile; one, two and three pools.
SHAPES = [
    Shape(),
    Shape(n_key_heads=2, head_dim=80, seq=130),
    Shape(n_key_heads=1, head_dim=72, seq=64, n_pools=1),
    Shape(batch=1, head_dim=32, seq=1),
    Shape(batch=2, head_dim=96, seq=65, n_pools=3),
    Shape(batch=2, head_dim=128, seq=129, n_key_heads=2),
    Shape(batch=1, head_dim=256, seq=100, n_pools=1),
]


def received(inputs: AttentionInputs, lse: Tensor) -> Tensor:
    from delta_attnmask.modeling.triton_received import add_received

    batch, n_heads, seq, _ = inputs.query.shape
    sums = torch.ones(batch, n_heads, inputs.weights.shape[1], seq, device=inputs.query.device)
    weights, spans = inputs.weights.contiguous(), counted_spans(inputs.weights)
    add_received(
        sums, inputs.query, inputs.key, lse.float(), weights, spans, scale=inputs.scale, is_causal=inputs.is_causal
    )
    return (sums - 1).mean(1)


@NEEDS_TRITON
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition(kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind, device=DEVICE)
    _, lse, expected = by_definition(inputs)
    assert error(received(inputs, lse), expected) < 1e-5


@NEEDS_TRITON
def test_the_first_launch_takes_no_model() -> None:
    from delta_attnmask.modeling.triton_received import launch_once

    launch_once(torch.device(DEVICE))


@NEEDS_TRITON
def test_queries_that_count_nowhere_may_have_any_log_sum_exp() -> None:
    inputs = draw(Shape(), device=DEVICE)
    _, lse, expected = by_definition(inputs)
    is_counted = (inputs.weights != 0).any(1)
    for poison in (-torch.inf, torch.inf, torch.nan):
        poisoned = lse.masked_fill(~is_counted[:, None], poison)
        assert error(received(inputs, poisoned), expected) < 1e-5


@NEEDS_CUDA
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [32, 64, 72, 80, 96, 128, 256])
def test_half_precision(dtype: torch.dtype, head_dim: int) -> None:
    inputs = draw(Shape(n_key_heads=2, head_dim=head_dim, seq=657), "causal", dtype, "cuda")
    _, lse, expected = by_definition(inputs)
    found = received(inputs, lse)
    assert error(found, expected) < 1e-4
    assert torch.equal(found, received(inputs, lse)), "the same inputs gave other sums"


@NEEDS_CUDA
def test_is_chosen_on_cuda() -> None:
    inputs = draw(Shape(n_key_heads=2, head_dim=64), "causal", torch.bfloat16, "cuda")
    _, lse, expected = by_definition(inputs)
    total = ReceivedAttention(inputs.weights)
    options = {"scale": inputs.scale, "is_causal": True}
    for _ in range(2):
        assert total.add_columns(inputs.query, inputs.key, lse.float(), None, **options) == "triton"
    assert error(total.mean(), expected) < 1e-4


def test_spans_hold_every_counted_query() -> None:
    weights = torch.zeros(4, 2, 9)
    weights[0, 0, 2:5] = 1
    weights[0, 1, 6] = 1
    weights[1] = 1
    weights[2, 0, 8] = 1
    assert counted_spans(weights).tolist() == [[2, 7], [0, 9], [8, 9], [0, 0]]
