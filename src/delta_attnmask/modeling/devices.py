"""Which device and precision a model gets, and what is reported where it can't have them."""

from typing import Literal

import torch
from torch import nn

from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.kernels import is_recent_gpu

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

PLACEMENTS = ("balanced", "balanced_low_0", "sequential")  # accelerate's, over all GPUs


def choose_device(device: str) -> torch.device:
    """The device of that name; "auto" takes the GPU if there is one, and placements over all GPUs begin at the first.

    Raises SettingsError where the name is unknown or this machine has no such device.
    """
    if device == "auto":
        return torch.device(_gpu_type() or "cpu")
    try:
        chosen = torch.device("cuda" if device in PLACEMENTS else device)
    except RuntimeError as error:
        raise SettingsError(f"device={device!r}: no such device; possible here: {_possible()}") from error
    present = torch.accelerator.current_accelerator(check_available=True)
    n_present = 0 if present is None or present.type != chosen.type else torch.accelerator.device_count()
    if chosen.type != "cpu" and (chosen.index or 0) >= n_present:
        raise SettingsError(f"device={device!r}: {_why_absent(chosen, n_present)}; possible here: {_possible()}")
    return chosen


def has_own_cores(device: torch.device) -> bool:
    """Whether the device computes while this process's threads do other things; only the CPU itself doesn't."""
    return device.type != "cpu"


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The precision of that name; "auto" is bfloat16 on an NVIDIA GPU, float16 on one too old for it, else float32."""
    if dtype == "auto" and device.type == "cuda":
        return torch.bfloat16 if is_recent_gpu(device) else torch.float16
    if dtype == "auto":
        return torch.float32
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def refuse_offloaded(name: str, model: nn.Module) -> None:
    """Raise UnsupportedModelError where accelerate left parts outside the GPUs, to be fetched at every forward."""
    sizes = dict.fromkeys((False, True), 0)
    for parameter in model.parameters():
        sizes[parameter.is_meta] += parameter.numel()
    if sizes[True]:
        share = sizes[True] / sum(sizes.values())
        raise UnsupportedModelError(
            f"{name}: {share:.0%} of its parameters don't fit the GPUs; use more of them (with --engine ray, "
            "--gpus-per-actor), or --dtype bfloat16"
        )


def _gpu_type() -> str | None:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _why_absent(device: torch.device, n_present: int) -> str:
    if n_present:
        return f"there are {n_present}, counted from 0"
    if device.type == "cuda" and not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} finds none on this machine"


def _possible() -> str:
    present = torch.accelerator.current_accelerator(check_available=True)
    if present is None:
        return "auto, cpu"
    numbered = [f"{present.type}:{index}" for index in range(torch.accelerator.device_count())]
    return ", ".join(["auto", "cpu", present.type, *numbered, *(["balanced"] if present.type == "cuda" else [])])
