"""Devices that this machine hasn't are refused in one line that says which it has."""

import pytest
import torch

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.devices import accelerators, choose_device, choose_dtype, free_memory, is_out_of_memory

NONE, TWO = ("", 0), ("cuda", 2)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "balanced", "gpu", "cuda:x", "meta", ""])
def test_without_a_gpu(device):
    with pytest.raises(SettingsError, match=r"^device='.*': .*; possible here: auto, cpu$") as caught:
        choose_device(device, NONE)
    assert "\n" not in str(caught.value)
    assert choose_device("auto", NONE) == choose_device("cpu", NONE) == torch.device("cpu")


def test_with_two_gpus():
    names = ("auto", "cuda", "balanced")
    assert {choose_device(name, TWO) for name in names} == {torch.device("cuda")}
    assert choose_device("cuda:1", TWO) == torch.device("cuda:1")
    possible = "possible here: auto, cpu, cuda, cuda:0, cuda:1, balanced"
    with pytest.raises(SettingsError, match=f"device='cuda:2': torch .* finds 2 on this machine; {possible}"):
        choose_device("cuda:2", TWO)
    with pytest.raises(SettingsError, match=f"device='gpu': no such device; {possible}"):
        choose_device("gpu", TWO)


def test_what_torch_finds_here():
    kind, _ = accelerators()
    assert (kind == "cuda") == torch.cuda.is_available()
    assert choose_device("auto").type in ("cpu", kind)


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_the_precision_is_one_that_the_gpu_computes_in(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) == getattr(torch, expected)
    assert choose_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32


class Failed(torch.AcceleratorError):
    """As torch raises it: with CUDA's number of the error."""

    def __init__(self, text: str, error_code: int):
        super().__init__(text)
        self.error_code = error_code


@pytest.mark.parametrize(
    ("error", "is_about_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (Failed("CUDA error: out of memory", 2), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (Failed("CUDA error: device-side assert triggered", 710), False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), False),
        (ValueError("Triton Error [CUDA]: out of memory"), False),
    ],
    ids=lambda value: str(value)[:50],
)
def test_memory_that_ran_out_is_told_from_other_faults(error: Exception, is_about_memory: bool) -> None:
    assert is_out_of_memory(error) == is_about_memory


def test_only_devices_with_memory_of_their_own_say_what_is_free() -> None:
    assert free_memory(torch.device("cpu")) is None
    assert free_memory(torch.device("mps")) == 0
