"""The sum of the attention that each token receives, over heads, queries and blocks."""

import functools
import importlib.util
from typing import Literal

import torch
from torch import Tensor

from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.attention.plain import column_sums
from delta_attnmask.modeling.attention.tiled import takes_tiles

_MAX_HEAD_DIM = 256  # of the Triton kernel

AttentionBackend = Literal["auto", "plain", "tiled", "fused", "triton"]


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
        is_simple = mask is None and query.device.type == "cuda" and query.shape[-1] <= _MAX_HEAD_DIM
        if self._spans is None or not is_simple:
            self.add(column_sums(query, key, lse, mask, weights, scale=scale, is_causal=is_causal))
            return self._columns if is_simple else "columns"
        from delta_attnmask.modeling.attention.triton_received import add_received

        with torch.cuda.device(query.device):
            sums, spans = self._by_head(query.device, query.shape[1]), self._spans.to(query.device)
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


def _triton_fault(device: torch.device) -> str:
    """What keeps the Triton kernel from a device, without a subject; empty where nothing does."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return f"needs an NVIDIA GPU and the triton package; the model is on {device.type!r}"
    return _launch_fault(device)


@functools.cache
def _launch_fault(device: torch.device) -> str:
    """The same of a first launch on a GPU, which is tried once.

    Triton compiles its launcher then, for which many a slim container lacks the C compiler or Python's headers.
    """
    try:
        from delta_attnmask.modeling.attention.triton_received import launch_once

        with torch.cuda.device(device):
            launch_once(device)
    except (torch.AcceleratorError, torch.OutOfMemoryError):  # about the device or what it holds, not about Triton
        raise
    except Exception as error:  # noqa: BLE001 - compilers that are missing or fail raise anything
        return f"can't be launched: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    return ""


def counted_spans(weights: Tensor) -> Tensor:
    """The first query of each sample that any pool counts, and the one behind the last; `[batch, 2]`, int32."""
    is_counted = (weights != 0).any(1)
    first = is_counted.int().argmax(-1)
    last = weights.shape[-1] - is_counted.flip(-1).int().argmax(-1)
    last = torch.where(is_counted.any(-1), last, first)
    return torch.stack([first, last], dim=-1).int()
