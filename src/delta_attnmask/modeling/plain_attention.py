"""Attention and what each key receives of it, in plain torch: right everywhere, and the fastest on a CPU.

Works in tiles, so that no seq×seq map of the whole batch ever exists. On a CPU the scores of a tile stay in a core's
cache, and attention and what is received come from the same scores: a flash kernel throws its scores away, so that what
each token receives costs the product of queries and keys, and the exponentials, once more.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_CPU_QUERIES, _GPU_QUERIES = 32, 256  # of a tile; few on a CPU, since causal tiles skip the keys after them
_CPU_ELEMENTS = 1 << 19  # of a tile's scores for each core, so that they stay in its cache
_GPU_ELEMENTS = 1 << 24  # 64 MiB in float32
_LOG2_E = math.log2(math.e)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    is_causal: bool,
    weights: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attention as defined in the eager code of transformers, and the attention received; softmax in float32.

    query: `[batch, head, query, dim]`; key and value may have fewer heads (grouped), value another size.
    mask: None, boolean (True = may attend) or additive, broadcastable to `[batch, head, query, key]`. Queries that may
        attend to nothing give zeros.
    weights: `[batch, pool, query]`, how much each query counts; None skips the second result.
    softcap: scores become `softcap * tanh(score / softcap)` (Gemma 2). sinks: one logit a head (gpt-oss).

    Returns `[batch, head, query, dim]`, and `[batch, pool, key]` averaged over heads in float32.
    """
    batch, n_heads, n_queries, _ = query.shape
    output = value.new_empty(batch, n_heads, n_queries, value.shape[-1])
    received = None if weights is None else weights.new_zeros(*weights.shape[:2], key.shape[2], dtype=torch.float32)
    dtype = torch.float32 if query.device.type == "cpu" else value.dtype
    query, key, value = query.to(dtype), key.to(dtype).contiguous(), value.to(dtype).contiguous()
    # In powers of two throughout: exp2 is three times as fast as exp on a CPU.
    if mask is not None:
        mask = (mask if mask.dtype == torch.bool else mask * _LOG2_E).expand(batch, -1, n_queries, -1)
    sink = None if sinks is None else sinks.float().reshape(-1, 1, 1) * _LOG2_E
    for samples, queries in _tiles(query, key.shape[2]):
        n_keys = queries.stop if is_causal else key.shape[2]
        factor = scale * _LOG2_E if softcap is None else scale / softcap
        scores = _products(query[samples, :, queries], key[samples, :, :n_keys], factor)
        if softcap is not None:
            scores = scores.tanh_().mul_(softcap * _LOG2_E)
        if mask is not None:
            scores = _masked(scores, mask[samples, :, queries, :n_keys])
        if is_causal:
            scores[..., queries].masked_fill_(_future(queries.stop - queries.start, scores.device), -torch.inf)
        highest = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).min)
        highest = highest if sink is None else torch.maximum(highest, sink)
        shares = scores.sub_(highest).exp2_()  # not yet divided by their sum
        total = shares.sum(-1, keepdim=True)
        total = total if sink is None else total + (sink - highest).exp2()
        divisor = total.clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()
        output[samples, :, queries] = _weighted(shares.to(dtype), value[samples, :, :n_keys]).mul_(divisor)
        if weights is not None and received is not None:
            counts = weights[samples, :, None, queries] * divisor[:, None, ..., 0] / n_heads
            received[samples, :, :n_keys] += counts.flatten(2) @ shares.flatten(1, 2)
    return output, received


def _tiles(query: Tensor, n_keys: int) -> Iterator[tuple[slice, slice]]:
    """Some samples, and some queries of them."""
    batch, n_heads, n_queries, _ = query.shape
    if query.device.type == "cpu":
        most, n_elements = _CPU_QUERIES, torch.get_num_threads() * _CPU_ELEMENTS
    else:
        most, n_elements = _GPU_QUERIES, _GPU_ELEMENTS
    step = min(most, max(_CPU_QUERIES, n_elements // (n_heads * n_keys)))
    n_samples = max(1, n_elements // (n_heads * n_keys * step))
    for sample in range(0, batch, n_samples):
        for start in range(0, n_queries, step):
            yield slice(sample, sample + n_samples), slice(start, min(start + step, n_queries))


def _products(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """`q·k * scale` in float32, `[sample, head, query, key]`; queries of grouped heads share one product."""
    groups, n_keys, dim = query.shape[0] * key.shape[1], key.shape[2], query.shape[-1]
    right = key.reshape(groups, n_keys, dim).transpose(-1, -2)
    scores = torch.baddbmm(query.new_empty(()), query.reshape(groups, -1, dim), right, beta=0, alpha=scale)
    return scores.view(*query.shape[:3], n_keys).float()


def _weighted(shares: Tensor, value: Tensor) -> Tensor:
    """Sum of the values by shares; `[sample, head, query, dim]`."""
    groups, n_keys = value.shape[0] * value.shape[1], value.shape[2]
    product = torch.bmm(shares.view(groups, -1, n_keys), value.reshape(groups, n_keys, -1))
    return product.view(*shares.shape[:3], -1)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Minus infinity where a boolean mask is False; an additive one added."""
    return scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def _future(size: int, device: torch.device) -> Tensor:
    """True where a key of a square tile comes after its query; `[size, size]`."""
    return torch.ones(size, size, dtype=torch.bool, device=device).triu_(1)
