"""Which device and precision a model gets, what is reported where it can't have them, and when memory runs out."""

from contextlib import suppress

import torch
from torch import nn

from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.settings import Dtype

PLACEMENTS = ("balanced", "balanced_low_0", "sequential")  # accelerate's, over all GPUs

_MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation, after which the device still works
# Errors that torch has no type for: the status that NVIDIA's libraries name, the driver's text in Triton, a CPU's.
_ALLOCATION_FAILED = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)


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


def is_recent_gpu(device: torch.device) -> bool:
    """Whether an NVIDIA GPU is of Ampere's generation or later: only those compute in bfloat16 and run torch's flash.

    On earlier ones torch imitates bfloat16, slowly, and its memory-efficient attention refuses it.
    """
    return torch.cuda.get_device_capability(device) >= (8, 0)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device with memory of its own has left for tensors; None for a CPU, 0 where nothing says it."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, so that less of it at a time may succeed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == _MEMORY_ALLOCATION
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_FAILED)


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
