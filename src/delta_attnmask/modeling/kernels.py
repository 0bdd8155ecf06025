"""Attention by torch's kernels for NVIDIA GPUs, asked for the log-sum-exp that they compute anyway."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from delta_attnmask.modeling.devices import is_out_of_memory, is_recent_gpu

_MASK_ALIGNMENT = 16  # of an additive mask's rows, in elements
_HEAD_ALIGNMENT = 8  # of the head size
_LOADED_BYTES = 16  # that a kernel reads at once, so every row has to begin at a multiple of them
_MAX_HEAD_DIM = 256


def takes_flash(query: Tensor) -> bool:
    """Whether torch's flash kernel runs on this GPU in this precision and head size."""
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return is_half and is_recent_gpu(query.device) and query.shape[-1] <= _MAX_HEAD_DIM


def takes_kernel(query: Tensor, value: Tensor) -> bool:
    """Whether `fused_attend` and the Triton kernel are for these inputs."""
    if query.device.type != "cuda" or query.shape[-1] != value.shape[-1] or query.shape[-1] > _MAX_HEAD_DIM:
        return False
    return value.dtype != torch.bfloat16 or is_recent_gpu(query.device)


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Keep torch's public attention, which vision towers call, from cuDNN, which plans anew for every new shape."""
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def aligned(states: Tensor) -> Tensor:
    """`[..., dim]` as torch's kernels need it: sizes of heads in eights, rows in one piece that begin at 16 bytes.

    torch's own function sees to that before it calls them. A copy only where it has to be one; zeros are added.
    """
    if missing := -states.shape[-1] % _HEAD_ALIGNMENT:
        return functional.pad(states, (0, missing))
    begins = [states.storage_offset(), *(s for s, n in zip(states.stride()[:-1], states.shape, strict=False) if n > 1)]
    if states.stride(-1) == 1 and not any(begin * states.element_size() % _LOADED_BYTES for begin in begins):
        return states
    return states.clone(memory_format=torch.contiguous_format)


def fused_attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """`[batch, head, seq, dim]` and the log-sum-exp `[batch, head, seq]`, in nats.

    All in one precision; key and value may have fewer heads (grouped). mask: as `additive` gives it, or None.
    """
    head_dim = query.shape[-1]
    query, key, value = aligned(query), aligned(key), aligned(value)
    if mask is None and takes_flash(query):
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        output, lse, *_ = flash(query, key, value, 0.0, is_causal, False, scale=scale)
        return output[..., :head_dim], lse
    group, seq = query.shape[1] // key.shape[1], query.shape[2]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    if mask is not None:
        mask = mask.expand(*query.shape[:3], seq)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    output, lse, *_ = efficient(query, key, value, mask, True, 0.0, is_causal, scale=scale)
    return output[..., :head_dim], lse[:, :, :seq]  # the kernel pads it


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as finite numbers to add, its rows aligned: padding that may attend to nothing must not give NaN."""
    smallest, seq = torch.finfo(dtype).min, mask.shape[-1]
    rows = torch.zeros(*mask.shape[:-1], seq + -seq % _MASK_ALIGNMENT, dtype=dtype, device=mask.device)[..., :seq]
    if mask.dtype != torch.bool:
        return rows.copy_(mask).clamp_(min=smallest)
    return rows.masked_fill_(~mask, smallest)


def counted_spans(weights: Tensor) -> Tensor:
    """The first query that each pool of each sample counts, and one past the last; `[batch, pool, 2]`, int32.

    weights: `[batch, pool, seq]`.
    """
    is_counted = weights != 0
    first = is_counted.int().argmax(-1)
    last = weights.shape[-1] - is_counted.flip(-1).int().argmax(-1)
    return torch.stack([first, torch.where(is_counted.any(-1), last, first)], dim=-1).int()


@functools.cache
def triton_fault(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """What keeps the Triton kernel from a device, precision and head size; empty where nothing does.

    A first launch is tried: Triton compiles its launcher then, for which many a slim container lacks the C compiler or
    Python's headers, and a GPU may have too little shared memory for wide heads.
    """
    if device.type != "cuda":
        return f"needs an NVIDIA GPU and the triton package; the model is on {device.type!r}"
    try:
        from delta_attnmask.modeling.triton_received import launch_once

        launch_once(device, dtype, head_dim)
    except Exception as error:  # compilers that are missing or fail raise anything
        if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):  # about the device, not about Triton
            raise
        return f"can't be launched: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    return ""
