"""Attention by torch's flash kernels, asked for the log-sum-exp that they compute anyway, and what tokens receive.

What each token receives is summed over heads, queries and blocks, from the log-sum-exp by a Triton kernel or in torch.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.plain_attention import column_sums, match_heads, takes_tiles
from delta_attnmask.settings import AttentionBackend

_CUDA_ALIGNMENT = 16  # of an additive mask's rows, in elements
_FLASH_ALIGNMENT = 8  # of the head size
_MAX_FLASH_HEAD_DIM = 256
_MAX_TRITON_HEAD_DIM = 256


def is_recent_gpu(device: torch.device) -> bool:
    """Whether an NVIDIA GPU is of Ampere's generation or later: only those compute in bfloat16 and run torch's flash.

    On earlier ones torch imitates bfloat16, slowly, and its memory-efficient attention refuses it.
    """
    return torch.cuda.get_device_capability(device) >= (8, 0)


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


class ReceivedAttention:
    """What each token received so far; one device synchronisation at the end, none in between.

    weights: `[batch, pool, seq]`, how much each query counts in each pool.
    n_blocks: how many blocks were added.
    """

    def __init__(self, weights: Tensor, backend: AttentionBackend = "auto"):
        self.n_blocks = 0
        self._weights = weights.float().contiguous()
        wants_it = wants_triton(backend, weights.device)
        self._sum = torch.zeros_like(self._weights)
        self._sums_by_head: dict[tuple[torch.device, int], Tensor] = {}
        self._spans = counted_spans(self._weights) if wants_it else None
        is_second_best = backend == "auto" and not wants_it and weights.device.type == "cuda"
        self._columns = f"columns (Triton {_triton_fault(weights.device)})" if is_second_best else "columns"

    @property
    def seq(self) -> int:
        return self._weights.shape[-1]

    @property
    def weights(self) -> Tensor:
        return self._weights

    def add(self, received: Tensor) -> None:
        """Add one block's `[batch, pool, seq]`, a mean over heads."""
        self._sum += received.to(self._sum.device)
        self.n_blocks += 1

    def add_columns(
        self, query: Tensor, key: Tensor, lse: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool
    ) -> str:
        """Add one block from what a fast kernel left; says which code summed it."""
        weights = self._weights.to(query.device)
        is_simple = mask is None and query.device.type == "cuda" and query.shape[-1] <= _MAX_TRITON_HEAD_DIM
        if self._spans is None or not is_simple:
            self.add(column_sums(query, key, lse, mask, weights, scale=scale, is_causal=is_causal))
            return self._columns if is_simple else "columns"
        from delta_attnmask.modeling.triton_received import add_received

        sums, spans = self._by_head(query.device, query.shape[1]), self._spans.to(query.device)
        with torch.cuda.device(query.device):
            add_received(sums, query, key, lse, weights, spans, scale=scale, is_causal=is_causal)
        self.n_blocks += 1
        return "triton"

    def mean(self) -> Tensor:
        """Mean over the added blocks; `[batch, pool, seq]`, float32."""
        total = self._sum.clone()
        for by_head in self._sums_by_head.values():
            total += by_head.mean(1).to(total.device)
        return total / max(self.n_blocks, 1)

    def _by_head(self, device: torch.device, n_heads: int) -> Tensor:
        batch, n_pools, seq = self._weights.shape
        if (device, n_heads) not in self._sums_by_head:
            self._sums_by_head[device, n_heads] = torch.zeros(batch, n_heads, n_pools, seq, device=device)
        return self._sums_by_head[device, n_heads]


def wants_tiles(backend: AttentionBackend, query: Tensor) -> bool:
    """Whether attention shall be computed in tiles; raises SettingsError where that is demanded and can't be done."""
    if backend == "tiled" and not takes_tiles(query):
        raise SettingsError(
            f"attention='tiled': is for float32 on CPUs; the model runs in {query.dtype} on {query.device.type!r}, "
            "so use attention='auto'"
        )
    return backend in ("auto", "tiled") and takes_tiles(query)


def wants_triton(backend: AttentionBackend, device: torch.device) -> bool:
    """Whether the Triton kernel shall be used; raises SettingsError where it is demanded and can't run."""
    if backend not in ("auto", "triton"):
        return False
    fault = _triton_fault(device)
    if backend == "triton" and fault:
        raise SettingsError(f"attention='triton': {fault}; use attention='auto'")
    return not fault


@functools.cache
def _triton_fault(device: torch.device) -> str:
    """What keeps the Triton kernel from a device, without a subject; empty where nothing does.

    A first launch is tried: Triton compiles its launcher then, for which many a slim container lacks the C compiler or
    Python's headers.
    """
    if device.type != "cuda":
        return f"needs an NVIDIA GPU and the triton package; the model is on {device.type!r}"
    try:
        from delta_attnmask.modeling.triton_received import launch_once

        launch_once(device)
    except (torch.AcceleratorError, torch.OutOfMemoryError):  # about the device or what it holds, not about Triton
        raise
    except Exception as error:  # noqa: BLE001 - compilers that are missing or fail raise anything
        return f"can't be launched: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    return ""


def counted_spans(weights: Tensor) -> Tensor:
    """The first query of each sample that any pool counts, and one past the last; `[batch, 2]`, int32."""
    is_counted = (weights != 0).any(1)
    first = is_counted.int().argmax(-1)
    last = weights.shape[-1] - is_counted.flip(-1).int().argmax(-1)
    last = torch.where(is_counted.any(-1), last, first)
    return torch.stack([first, last], dim=-1).int()
