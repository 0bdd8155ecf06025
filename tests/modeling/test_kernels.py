"""Torch's kernels for NVIDIA GPUs, and when the Triton kernel is left aside."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from delta_attnmask.modeling.kernels import (
    additive,
    aligned,
    counted_spans,
    fused_attend,
    takes_kernel,
    triton_fault,
    without_cudnn_attention,
)
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


@pytest.mark.parametrize(
    "launching", [torch.OutOfMemoryError("full"), RuntimeError("Triton Error [CUDA]: out of memory")], indirect=True
)
def test_a_device_that_fails_at_the_first_launch_is_no_fault_of_triton(launching: Launching) -> None:
    for _ in range(2):
        with pytest.raises(type(launching.error)):
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


def test_rows_of_masks_begin_where_kernels_need_them() -> None:
    mask = torch.ones(2, 1, 21, 21, dtype=torch.bool).tril()
    for given in (mask, torch.zeros(2, 1, 21, 21).masked_fill(~mask, -torch.inf)):
        added = additive(given, torch.bfloat16)
        assert added.shape == mask.shape
        assert added.stride(-2) % 16 == 0
        assert torch.equal(added == 0, mask)
        assert added.min() == torch.finfo(torch.bfloat16).min


VIEWS = {
    "as models give them": lambda states: states.transpose(1, 2),
    "of fused projections": lambda states: torch.cat([states, states, states], dim=-1)[..., 16:32].transpose(1, 2),
    "grown out of one": lambda states: states[:, :, :1].transpose(1, 2).expand(-1, 4, -1, -1),
}
UNALIGNED = {
    "odd offset": lambda states: torch.cat([states, states], dim=-1)[..., 3:19].transpose(1, 2),
    "odd rows": lambda states: torch.cat([states, states[..., :1]], dim=-1)[..., :16].transpose(1, 2),
    "heads last": lambda states: states.transpose(2, 3).contiguous().transpose(2, 3).transpose(1, 2),
    "narrow heads": lambda states: states[..., :13].transpose(1, 2),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", [*VIEWS, *UNALIGNED])
def test_only_views_that_kernels_refuse_are_copied(name: str, dtype: torch.dtype) -> None:
    states = (VIEWS | UNALIGNED)[name](torch.randn(2, 9, 4, 16).to(dtype))
    found = aligned(states)
    assert (found is states) == (name in VIEWS)
    assert torch.equal(found[..., : states.shape[-1]], states)
    assert not found[..., states.shape[-1] :].any()
    assert found.shape[-1] % 8 == 0
    assert found.stride(-1) == 1
    assert not any(begin * found.element_size() % 16 for begin in (found.storage_offset(), *found.stride()[:-1]))


class Calls(TorchDispatchMode):
    """Keeps what attention kernels are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_scaled_dot_product" in function.overloadpacket.__name__:
            self.states += [value for value in args if isinstance(value, Tensor)]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_masked", [False, True])
def test_kernels_are_given_aligned_states_and_give_the_head_size_back(
    is_masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with torch.device("meta"), Calls() as calls:
        wide = torch.zeros(2, 21, 4, 27, dtype=torch.bfloat16)
        query = wide[..., 1:21].transpose(1, 2)  # 20 wide, at an odd place
        mask = torch.ones(21, 21, dtype=torch.bool).tril()[None, None]
        given = additive(mask, torch.bfloat16) if is_masked else None
        output, lse = fused_attend(query, query[:, :2], query[:, :2], given, scale=0.2, is_causal=not is_masked)
    assert output.shape == (2, 4, 21, 20)
    assert lse.shape == (2, 4, 21)
    assert len(calls.states) == 3 + is_masked
    for states in calls.states[:3]:
        assert states.shape[-1] == 24
        assert not any(stride * 2 % 16 for stride in states.stride()[:-1])
    for mask in calls.states[3:]:
        assert mask.stride(-2) % 16 == 0


def test_public_attention_is_kept_from_cudnn_for_a_while() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with without_cudnn_attention():
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
