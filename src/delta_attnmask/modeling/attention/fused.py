"""Attention by torch's own flash kernels, asked for the log-sum-exp that they compute anyway."""

import torch
from torch import Tensor
from torch.nn import functional

from delta_attnmask.modeling.attention.plain import match_heads
from delta_attnmask.modeling.devices import is_recent_gpu

_CUDA_ALIGNMENT = 16  # of an additive mask's rows, in elements
_FLASH_ALIGNMENT = 8  # of the head size
_MAX_FLASH_HEAD_DIM = 256


def fused_attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor] | None:
    """`[batch, head, seq, dim]` and the log-sum-exp `[batch, head, seq]`; None where no kernel takes these inputs.

    All in one precision; key and value may have fewer heads (grouped).
    mask: None or boolean/additive and broadcastable to `[batch, head, seq, seq]`.
    """
    if query.shape[-1] != value.shape[-1] or (mask is not None and is_causal):
        return None
    if query.device.type == "cpu":
        return _cpu(query, key, value, _additive(mask, query), scale, is_causal)
    if query.device.type != "cuda":
        return None
    if query.dtype == torch.bfloat16 and not is_recent_gpu(query.device):
        return None
    if mask is None and takes_flash(query):
        return _cuda_flash(query, key, value, scale, is_causal)
    return _cuda_efficient(query, key, value, _additive(mask, query), scale, is_causal)


def _cpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, is_causal: bool) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, lse = kernel(q, k, v, 0.0, is_causal, attn_mask=mask, scale=scale)
    return output, lse


def takes_flash(query: Tensor) -> bool:
    """Whether torch's flash kernel runs on this GPU in this precision and head size."""
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return is_half and is_recent_gpu(query.device) and query.shape[-1] <= _MAX_FLASH_HEAD_DIM


def _cuda_flash(q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool) -> tuple[Tensor, Tensor]:
    head_dim = q.shape[-1]
    if missing := -head_dim % _FLASH_ALIGNMENT:
        q, k, v = (functional.pad(states, (0, missing)) for states in (q, k, v))
    output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)
    return output[..., :head_dim], lse


def _cuda_efficient(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    k, v = match_heads(k, q.shape[1]), match_heads(v, q.shape[1])
    bias = None if mask is None else _aligned(mask).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    output, lse, *_ = kernel(q, k, v, bias, True, 0.0, is_causal, scale=scale)
    return output, lse[:, :, : q.shape[2]]  # the kernel pads it


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """The mask as finite numbers to add, in the query's dtype: padding that may attend to nothing must not give NaN."""
    if mask is None:
        return None
    smallest = torch.finfo(query.dtype).min
    if mask.dtype != torch.bool:
        return mask.to(query.dtype).clamp(min=smallest)
    return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, smallest)


def _aligned(mask: Tensor) -> Tensor:
    """The same mask in memory whose rows start where the kernel can read them."""
    seq = mask.shape[-1]
    if seq % _CUDA_ALIGNMENT == 0:
        return mask
    return functional.pad(mask, (0, -seq % _CUDA_ALIGNMENT))[..., :seq]
