"""Which code sums the attention received, and the sum over blocks."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.attention import received
from delta_attnmask.modeling.attention.received import ReceivedAttention, wants_triton
from tests.modeling.attention.inputs import Shape, by_definition, draw, error


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


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """The first launches that were tried, as if there were GPUs, and Triton without a C compiler."""
    tried: list[torch.device] = []

    def launch_once(device: torch.device) -> None:
        tried.append(device)
        raise RuntimeError("Failed to find C compiler.\nPlease specify")

    module = SimpleNamespace(launch_once=launch_once)
    monkeypatch.setitem(sys.modules, "delta_attnmask.modeling.attention.triton_received", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    received._launch_fault.cache_clear()
    yield tried
    received._launch_fault.cache_clear()


def test_triton_is_left_aside_where_it_cannot_be_launched(launches: list[torch.device]) -> None:
    gpus = [torch.device("cuda:0"), torch.device("cuda:1")]
    for _ in range(3):
        assert not any(wants_triton("auto", gpu) for gpu in gpus)
    assert launches == gpus
    assert not wants_triton("plain", torch.device("cuda:2"))
    assert launches == gpus
    with pytest.raises(SettingsError, match=r"attention='triton': can't be launched: Failed to find C compiler.; use"):
        wants_triton("triton", gpus[0])


def test_columns_say_why_triton_did_not_sum_them(launches: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "column_sums", lambda *_, **__: torch.zeros(1, 1, 4, device="cuda"))
    with FakeTensorMode():
        states, lse = torch.zeros(1, 2, 4, 16, device="cuda"), torch.zeros(1, 2, 4, device="cuda")
        for backend, named in (("fused", "columns"), ("auto", "columns (Triton can't be launched: Failed to find")):
            total = ReceivedAttention(torch.ones(1, 1, 4, device="cuda"), backend)
            assert total.add_columns(states, states, lse, None, scale=1.0, is_causal=True).startswith(named)


def test_a_device_that_fails_at_the_first_launch_is_no_fault_of_triton(
    launches: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: torch.device) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(sys.modules["delta_attnmask.modeling.attention.triton_received"], "launch_once", fail)
    with pytest.raises(torch.OutOfMemoryError):
        wants_triton("auto", torch.device("cuda:0"))
