"""The Triton kernel against the definition. With TRITON_INTERPRET=1 it runs on the CPU."""

import pytest
import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.kernels import additive, counted_spans
from delta_attnmask.modeling.recorder import AttentionRecorder
from tests.modeling.attention_devices import HAS_CUDA, NEEDS_CUDA, NEEDS_TRITON
from tests.modeling.attention_inputs import AttentionInputs, MaskKind, Shape, by_definition, draw, error

DEVICE = "cuda" if HAS_CUDA else "cpu"
KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
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
    from delta_attnmask.modeling.triton_received import received_columns

    mask = None if inputs.mask is None else additive(inputs.mask, inputs.query.dtype)
    weights, spans = inputs.weights.contiguous(), counted_spans(inputs.weights)
    return received_columns(
        inputs.query,
        inputs.key,
        lse.float(),
        mask,
        weights,
        spans,
        scale=inputs.scale,
        is_causal=inputs.is_causal,
    )


@NEEDS_TRITON
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition(kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind, device=DEVICE)
    _, lse, expected = by_definition(inputs)
    assert error(received(inputs, lse), expected) < 1e-5


@NEEDS_TRITON
@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.float32, 16), (torch.bfloat16, 80)])
def test_the_first_launch_takes_no_model(dtype: torch.dtype, head_dim: int) -> None:
    from delta_attnmask.modeling.triton_received import launch_once

    launch_once(torch.device(DEVICE), dtype, head_dim)


@NEEDS_TRITON
@pytest.mark.parametrize("kind", ["causal", "padded"])
def test_queries_that_count_nowhere_may_hold_anything(kind: MaskKind) -> None:
    inputs = draw(Shape(), kind, device=DEVICE)
    _, lse, expected = by_definition(inputs)
    is_uncounted = ~(inputs.weights != 0).any(1)[:, None]
    for poison in (-torch.inf, torch.inf, torch.nan):
        poisoned = lse.masked_fill(is_uncounted, poison)
        inputs.query.masked_fill_(is_uncounted[..., None], poison)
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
@pytest.mark.parametrize("kind", KINDS)
def test_is_chosen_on_cuda(kind: MaskKind) -> None:
    inputs = draw(Shape(n_key_heads=2, head_dim=64), kind, torch.bfloat16, "cuda")
    block, (batch, _, seq, _) = nn.Linear(1, 1), inputs.query.shape
    roles = TokenRoles.of({}, torch.zeros(batch, seq, dtype=torch.long, device="cuda"), None)
    recorder = AttentionRecorder(nn.ModuleList([block]), inputs.weights, roles)
    recorder.is_recording = True
    states = inputs.query, inputs.key, inputs.value
    output, _ = recorder(block, *states, inputs.mask, scaling=inputs.scale, is_causal=inputs.is_causal)
    expected, _, expected_received = by_definition(inputs)
    assert recorder.backends == {"triton"}
    assert error(output.transpose(1, 2), expected) < 1e-2
    assert error(recorder.saliency, expected_received) < 1e-2
