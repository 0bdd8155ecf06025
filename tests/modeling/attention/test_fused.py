"""Torch's flash kernels with their log-sum-exp, on each device at hand."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_attnmask.modeling.attention import fused
from delta_attnmask.modeling.attention.fused import fused_attend
from delta_attnmask.modeling.attention.plain import column_sums
from tests.modeling.attention.devices import DEVICES, NEEDS_CUDA
from tests.modeling.attention.inputs import MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
CUDA_DTYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [Shape(), Shape(n_key_heads=1, head_dim=20)], ids=["heads", "grouped"])
def test_equals_the_definition(device: str, kind: MaskKind, shape: Shape) -> None:
    inputs = draw(shape, kind, device=device)
    found = fused_attend(
        inputs.query, inputs.key, inputs.value, inputs.mask, scale=inputs.scale, is_causal=inputs.is_causal
    )
    assert found is not None
    output, lse = found
    expected, expected_lse, _ = by_definition(inputs)
    assert error(output, expected) < 1e-5
    assert error(lse, expected_lse) < 1e-5


@NEEDS_CUDA
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", CUDA_DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [16, 20, 72, 80, 96, 128, 256])
def test_cuda_precisions(kind: MaskKind, dtype: torch.dtype, head_dim: int) -> None:
    inputs = draw(Shape(n_key_heads=2, head_dim=head_dim, seq=201), kind, dtype, "cuda")
    found = fused_attend(
        inputs.query, inputs.key, inputs.value, inputs.mask, scale=inputs.scale, is_causal=inputs.is_causal
    )
    assert found is not None
    output, lse = found
    expected, _, expected_received = by_definition(inputs)
    received = column_sums(
        inputs.query, inputs.key, lse, inputs.mask, inputs.weights, scale=inputs.scale, is_causal=inputs.is_causal
    )
    assert error(output, expected) < CUDA_DTYPES[dtype]
    assert error(received, expected_received) < CUDA_DTYPES[dtype]


def test_an_old_gpu_is_given_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = {"is": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability["is"])
    for kernel in ("_cuda_flash", "_cuda_efficient"):
        monkeypatch.setattr(fused, kernel, lambda query, *_: (query, query))
    with FakeTensorMode():
        states = torch.zeros(1, 2, 8, 16, device="cuda", dtype=torch.bfloat16)
        assert fused_attend(states, states, states, None, scale=1.0, is_causal=True) is None
        assert fused_attend(*[states.half()] * 3, None, scale=1.0, is_causal=True) is not None
        capability["is"] = (8, 0)
        assert fused_attend(states, states, states, None, scale=1.0, is_causal=True) is not None


def test_leaves_what_no_kernel_takes() -> None:
    inputs = draw(Shape(), "padded")
    narrow = inputs.value[..., :8]
    assert fused_attend(inputs.query, inputs.key, narrow, inputs.mask, scale=1.0, is_causal=False) is None
    assert fused_attend(inputs.query, inputs.key, inputs.value, inputs.mask, scale=1.0, is_causal=True) is None
