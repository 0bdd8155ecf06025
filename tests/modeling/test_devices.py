"""Devices that this machine hasn't are refused in one line that says which it has."""

import pytest
import torch

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.devices import choose_device
from delta_attnmask.modeling.load import choose_dtype


@pytest.fixture
def gpus(monkeypatch):
    """A function that lets torch find so many CUDA devices."""

    def pretend(n_gpus):
        found = torch.device("cuda") if n_gpus else None
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: n_gpus)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return pretend


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "balanced", "gpu", "cuda:x", "meta", ""])
def test_without_a_gpu(gpus, device):
    gpus(0)
    with pytest.raises(SettingsError, match=r"^device='.*': .*; possible here: auto, cpu$") as caught:
        choose_device(device)
    assert "\n" not in str(caught.value)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_with_two_gpus(gpus):
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == choose_device("balanced") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    possible = "possible here: auto, cpu, cuda, cuda:0, cuda:1, balanced"
    with pytest.raises(SettingsError, match=f"device='cuda:2': there are 2, counted from 0; {possible}"):
        choose_device("cuda:2")
    with pytest.raises(SettingsError, match=f"device='gpu': no such device; {possible}"):
        choose_device("gpu")


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_the_precision_is_one_that_the_gpu_computes_in(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) == getattr(torch, expected)
    assert choose_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32


def test_a_build_without_cuda_is_named(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(SettingsError, match="is built without CUDA"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(SettingsError, match="finds none on this machine"):
        choose_device("cuda")
