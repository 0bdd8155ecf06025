"""Which device and precision a model gets, and what is reported where it can't have them."""

from typing import NamedTuple

import torch
from torch import nn

from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.kernels import is_recent_gpu
from delta_attnmask.settings import Dtype

PLACEMENTS = ("balanced", "balanced_low_0", "sequential")  # accelerate's, over all GPUs


class Accelerators(NamedTuple):
    """Those that torch finds on this machine: their type, such as "cuda" ("" without any), and how many there are."""

    type: str
    n_devices: int
    is_cuda_built: bool

    @classmethod
    def found(cls) -> "Accelerators":
        present = torch.accelerator.current_accelerator(check_available=True)
        is_built: bool = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
        if present is None:
            return cls("", 0, is_built)
        return cls(present.type, torch.accelerator.device_count(), is_built)

    def why_absent(self, device: torch.device) -> str:
        if self.type == device.type:
            return f"there are {self.n_devices}, counted from 0"
        if device.type == "cuda" and not self.is_cuda_built:
            return f"torch {torch.__version__} is built without CUDA"
        return f"torch {torch.__version__} finds none on this machine"

    def names(self) -> str:
        """What may be asked for here."""
        numbered = [f"{self.type}:{index}" for index in range(self.n_devices)]
        several = ["balanced"] if self.type == "cuda" else []
        return ", ".join(["auto", "cpu", *([self.type] if self.type else []), *numbered, *several])


def choose_device(device: str, accelerators: Accelerators | None = None) -> torch.device:
    """The device of that name; "auto" takes the GPU if there is one, and placements over all GPUs begin at the first.

    accelerators: of this machine, if not given.
    Raises SettingsError where the name is unknown or this machine has no such device.
    """
    present = accelerators or Accelerators.found()
    if device == "auto":
        return torch.device(present.type if present.type in ("cuda", "mps") else "cpu")
    try:
        chosen = torch.device("cuda" if device in PLACEMENTS else device)
    except RuntimeError as error:
        raise SettingsError(f"device={device!r}: no such device; possible here: {present.names()}") from error
    if chosen.type != "cpu" and (chosen.type != present.type or (chosen.index or 0) >= present.n_devices):
        raise SettingsError(f"device={device!r}: {present.why_absent(chosen)}; possible here: {present.names()}")
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
