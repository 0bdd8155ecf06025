"""Torch's kernels for NVIDIA GPUs, and when the Triton kernel is left aside."""

import sys
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_attnmask.modeling.kernels import additive, counted_spans, fused_attend, takes_kernel, triton_fault
from tests.modeling.attention_devices import NEEDS_CUDA
from tests.modeling.attention_inputs import MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
CUDA_DTYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@NEEDS_CUDA
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", CUDA_DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [16, 20, 72, 80, 96, 128, 256])
def test_cuda_precisions(kind: MaskKind, dtype: torch.dtype, head_dim: int) -> None:
    inputs = draw(Shape(n_key_heads=2, head_dim=head_dim, seq=201), kind, dtype, "cuda")
    mask = None if inputs.mask is None else additive(inputs.mask, dtype)
    output, lse = fused_attend(
        inputs.query, inputs.key, inputs.value, mask, scale=inputs.scale, is_causal=inputs.is_causal
    )
    expected, expected_lse, _ = by_definition(inputs)
    assert error(output, expected) < CUDA_DTYPES[dtype]
    assert error(lse, expected_lse) < CUDA_DTYPES[dtype]


def test_an_old_gpu_is_given_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = {"is": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability["is"])
    with FakeTensorMode():
        states = torch.zeros(1, 2, 8, 16, device="cuda", dtype=torch.bfloat16)
        assert not takes_kernel(states, states)
        assert takes_kernel(states.half(), states.half())
        capability["is"] = (8, 0)
        assert takes_kernel(states, states)
        assert not takes_kernel(states, torch.zeros(1, 2, 8, 8, device="cuda", dtype=torch.bfloat16))


class Launching(ModuleType):
    """Stands for the Triton kernel on GPUs that this machine hasn't."""

    def __init__(self, error: Exception):
        super().__init__("triton_received")
        self.error = error
        self.tried: list[tuple[torch.device, torch.dtype, int]] = []

    def launch_once(self, *wanted: object) -> None:
        self.tried.append(wanted)  # type: ignore[arg-type]
        raise self.error


@pytest.fixture
def launching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Launching:
    """Triton without a C compiler, if no other error is given."""
    module = Launching(getattr(request, "param", RuntimeError("Failed to find C compiler.\nPlease specify")))
    monkeypatch.setitem(sys.modules, "delta_attnmask.modeling.triton_received", module)
    return module


def test_triton_is_tried_once_for_each_device_precision_and_head_size(launching: Launching) -> None:
    wanted = [
        (torch.device("cuda:8"), torch.bfloat16, 64),
        (torch.device("cuda:9"), torch.bfloat16, 64),
        (torch.device("cuda:9"), torch.float32, 64),
        (torch.device("cuda:9"), torch.float32, 128),
    ]
    for _ in range(3):
        assert {triton_fault(*one) for one in wanted} == {"can't be launched: Failed to find C compiler."}
    assert launching.tried == wanted
    assert "needs an NVIDIA GPU" in triton_fault(torch.device("cpu"), torch.float32, 64)


@pytest.mark.parametrize("launching", [torch.OutOfMemoryError("full")], indirect=True)
def test_a_device_that_fails_at_the_first_launch_is_no_fault_of_triton(launching: Launching) -> None:
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            triton_fault(torch.device("cuda:12"), torch.bfloat16, 64)
    assert len(launching.tried) == 2


def test_spans_hold_every_counted_query() -> None:
    weights = torch.zeros(4, 2, 9)
    weights[0, 0, 2:5] = 1
    weights[0, 1, 6] = 1
    weights[1] = 1
    weights[2, 0, 8] = 1
    expected = [[[2, 5], [6, 7]], [[0, 9], [0, 9]], [[8, 9], [0, 0]], [[0, 0], [0, 0]]]
    assert counted_spans(weights).tolist() == expected


def test_masks_become_finite_numbers_to_add() -> None:
    may_attend = torch.tensor([[True, False]])
    for mask in (may_attend, torch.tensor([[0.0, -torch.inf]])):
        assert additive(mask, torch.float16).tolist() == [[0.0, torch.finfo(torch.float16).min]]
