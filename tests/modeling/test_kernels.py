"""Torch's flash kernels on each device at hand, which code sums what tokens receive, and the sum."""

import sys
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling import kernels
from delta_attnmask.modeling.kernels import ReceivedAttention, fused_attend, wants_triton
from delta_attnmask.modeling.plain_attention import column_sums
from tests.modeling.attention_devices import DEVICES, NEEDS_CUDA
from tests.modeling.attention_inputs import MaskKind, Shape, by_definition, draw, error

KINDS: list[MaskKind] = ["none", "causal", "padded", "window", "bias"]
CUDA_DTYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [Shape(), Shape(n_key_heads=1, head_dim=20)], ids=["heads", "grouped"])
def test_flash_equals_the_definition(device: str, kind: MaskKind, shape: Shape) -> None:
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
        monkeypatch.setattr(kernels, kernel, lambda query, *_: (query, query))
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


class Launching(ModuleType):
    """Stands for the Triton kernel on GPUs that this machine hasn't."""

    def __init__(self, error: Exception):
        super().__init__("triton_received")
        self.error = error
        self.tried: list[torch.device] = []

    def launch_once(self, device: torch.device) -> None:
        self.tried.append(device)
        raise self.error


@pytest.fixture
def launching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Launching:
    """Triton without a C compiler, if no other error is given."""
    module = Launching(getattr(request, "param", RuntimeError("Failed to find C compiler.\nPlease specify")))
    monkeypatch.setitem(sys.modules, "delta_attnmask.modeling.triton_received", module)
    return module


def test_triton_is_left_aside_where_it_cannot_be_launched(launching: Launching) -> None:
    gpus = [torch.device("cuda:8"), torch.device("cuda:9")]
    for _ in range(3):
        assert not any(wants_triton("auto", gpu) for gpu in gpus)
    assert launching.tried == gpus
    assert not wants_triton("plain", torch.device("cuda:10"))
    assert launching.tried == gpus
    with pytest.raises(SettingsError, match=r"attention='triton': can't be launched: Failed to find C compiler.; use"):
        wants_triton("triton", gpus[0])


@pytest.mark.usefixtures("launching")
def test_columns_say_why_triton_did_not_sum_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "column_sums", lambda *_, **__: torch.zeros(1, 1, 4, device="cuda:11"))
    with FakeTensorMode():
        states, lse = torch.zeros(1, 2, 4, 16, device="cuda:11"), torch.zeros(1, 2, 4, device="cuda:11")
        for backend, named in (("fused", "columns"), ("auto", "columns (Triton can't be launched: Failed to find")):
            total = ReceivedAttention(torch.ones(1, 1, 4, device="cuda:11"), backend)  # type: ignore[arg-type]
            assert total.add_columns(states, states, lse, None, scale=1.0, is_causal=True).startswith(named)


@pytest.mark.parametrize("launching", [torch.OutOfMemoryError("full")], indirect=True)
def test_a_device_that_fails_at_the_first_launch_is_no_fault_of_triton(launching: Launching) -> None:
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            wants_triton("auto", torch.device("cuda:12"))
    assert len(launching.tried) == 2
