"""The devices that a test can run on here."""

import importlib.util
import os

import pytest
import torch

HAS_CUDA = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels run on the CPU, slowly

DEVICES = ["cpu", "cuda"] if HAS_CUDA else ["cpu"]
NEEDS_CUDA = pytest.mark.skipif(not HAS_CUDA, reason="needs an NVIDIA GPU; this machine has none")
NEEDS_TRITON = pytest.mark.skipif(
    not (HAS_TRITON and (HAS_CUDA or IS_INTERPRETED)),
    reason="needs triton and an NVIDIA GPU (or TRITON_INTERPRET=1)",
)
