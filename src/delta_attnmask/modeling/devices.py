"""Which device and precision a model gets, and what is reported where it can't have them."""

from contextlib import suppress

import torch
from torch import nn

from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.kernels import is_recent_gpu
from delta_attnmask.settings import Dtype

PLACEMENTS = ("balanced", "balanced_low_0", "sequential")  # accelerate's, over all GPUs


def accelerators() -> tuple[str, int]:
    """The type of those that torch finds here, such as "cuda" ("" without any), and how many there are."""
    present = torch.accelerator.current_accelerator(check_available=True)
    return (present.type, torch.accelerator.device_count()) if present else ("", 0)


def choose_device(device: str, present: tuple[str, int] | None = None) -> torch.device:
    """The device of that name; "auto" takes the GPU if there is one, and placements over all GPUs begin at the first.

    present: as `accelerators` gives it for this machine, which is asked if not given.
    Raises SettingsError where the name is unknown or this machine has no such device.
    """
    kind, n_devices = present or accelerators()
    if device == "auto":
        return torch.device(kind if kind in ("cuda", "mps") else "cpu")
    problem = "no such device"
    with suppress(RuntimeError):
        chosen = torch.device("cuda" if device in PLACEMENTS else device)
        if chosen.type == "cpu" or (chosen.type == kind and (chosen.index or 0) < n_devices):
            return chosen
        problem = f"torch {torch.__version__} finds {n_devices if chosen.type == kind else 'none'} on this machine"
    numbered = [f"{kind}:{index}" for index in range(n_devices)]
    possible = ["auto", "cpu", *([kind] if kind else []), *numbered, *(["balanced"] if kind == "cuda" else [])]
    raise SettingsError(f"device={device!r}: {problem}; possible here: {', '.join(possible)}")


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
    n_left, n_all = (sum(p.numel() for p in model.parameters() if p.is_meta or counts) for counts in (False, True))
    if n_left:
        raise UnsupportedModelError(
            f"{name}: {n_left / n_all:.0%} of its parameters don't fit the GPUs; use more of them (with --engine ray, "
            "--gpus-per-actor), or --dtype bfloat16"
        )
