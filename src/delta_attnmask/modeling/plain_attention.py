"""Attention and what each key receives of it, in plain torch: right everywhere, and the other backends' yardstick.

Works through the queries chunk by chunk, so that no seq×seq map of the whole batch ever exists. On a CPU the chunks are
tiles whose scores stay in a core's cache, and attention and what is received come from the same scores: a flash kernel
throws its scores away, so that what each token receives costs the product of queries and keys, and the exponentials,
once more. As fast as the flash kernel alone, at the sizes measured.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 24  # of one chunk's scores: 64 MiB in float32
_CACHE_ELEMENTS = 1 << 19  # of one chunk's scores for each core of a CPU, so that they stay in its cache
_CPU_QUERIES = 32  # a chunk on a CPU; small, since causal chunks skip the keys after them
_GPU_QUERIES = 256
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Piece:
    """A range of samples, and a range of queries in them."""

    samples: slice
    start: int
    stop: int

    @property
    def queries(self) -> slice:
        return slice(self.start, self.stop)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    is_causal: bool,
    weights: Tensor | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attention as defined in the eager code of transformers, and the attention received.

    query: `[batch, head, seq, dim]`; key and value may have fewer heads (grouped).
    mask: None, boolean (True = may attend) or additive, broadcastable to `[batch, head, seq, seq]`.
    weights: `[batch, pool, seq]`, how much each query counts; None skips the second result.
    softcap: scores become `softcap * tanh(score / softcap)` (Gemma 2). sinks: one logit a head (gpt-oss).

    Returns `[batch, head, seq, dim]`, and `[batch, pool, seq]` averaged over heads in float32.
    """
    key, value = match_heads(key, query.shape[1]), match_heads(value, query.shape[1])
    outputs: list[Tensor] = []
    received = None if weights is None else weights.new_zeros(weights.shape, dtype=torch.float32)
    for start, stop in _chunks(query):
        scores = query[:, :, start:stop] @ key.transpose(-1, -2) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = _restrict(scores, mask, start, stop, is_causal)
        shares = _softmax(scores, sinks)
        outputs.append(shares.to(value.dtype) @ value)
        if received is not None and weights is not None:
            received += _pool_heads(shares, weights[:, :, start:stop])
    return torch.cat(outputs, dim=2), received


def column_sums(
    query: Tensor, key: Tensor, lse: Tensor, mask: Tensor | None, weights: Tensor, *, scale: float, is_causal: bool
) -> Tensor:
    """Attention received, from the log-sum-exp of a fast kernel: `sum_q weight[q] * exp(q·k * scale - lse[q])`.

    key: may have fewer heads (grouped); it is never repeated. lse: `[batch, head, seq]`.
    Queries that no pool counts are skipped, whatever their log-sum-exp.
    Returns `[batch, pool, seq]` averaged over heads, float32.
    """
    batch, n_heads, seq, _ = query.shape
    key = key.contiguous()  # once, or else every tile copies its part
    is_counted = (weights != 0).any(1)
    # In powers of two throughout: exp2 is three times as fast as exp on a CPU.
    minus_lse = (lse.float() * -_LOG2_E).masked_fill(~is_counted[:, None], -torch.inf)
    mask = _in_powers_of_two(mask, batch, seq)
    received = weights.new_zeros(weights.shape, dtype=torch.float32)
    for tile in _tiles(is_counted, n_heads):
        n_keys = tile.stop if is_causal else key.shape[2]
        keys = key[tile.samples, :, :n_keys]
        queries, added = query[tile.samples, :, tile.queries], minus_lse[tile.samples, :, tile.queries]
        scores = _scores(queries, keys, added, scale * _LOG2_E)
        if mask is not None:
            scores = _masked(scores, mask[tile.samples, :, tile.queries, :n_keys])
        if is_causal:
            scores[..., tile.queries].masked_fill_(_future(tile.stop - tile.start, scores.device), -torch.inf)
        received[tile.samples, :, :n_keys] += _pool_heads(scores.exp2_(), weights[tile.samples, :, tile.queries])
    return received


def takes_tiles(query: Tensor) -> bool:
    """Whether attention can be computed in tiles: float32 on a CPU."""
    return query.device.type == "cpu" and query.dtype == torch.float32


def tiled_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    weights: Tensor | None,
    *,
    scale: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor | None]:
    """`[batch, head, seq, dim]` and the attention received `[batch, pool, seq]`, averaged over heads, float32.

    query: `[batch, head, seq, dim]`; key and value may have fewer heads (grouped), value another size.
    mask: None or boolean/additive and broadcastable to `[batch, head, seq, seq]`. Queries that may attend to nothing
    give zeros. weights: `[batch, pool, seq]`, how much each query counts; None spares the second result.
    """
    batch, n_heads, seq, _ = query.shape
    key, value = key.contiguous(), value.contiguous()  # once, or else every tile copies its part
    mask = _in_powers_of_two(mask, batch, seq)
    output = query.new_empty(batch, n_heads, seq, value.shape[-1])
    received = None if weights is None else weights.new_zeros(weights.shape, dtype=torch.float32)
    for tile in _cache_tiles(query.new_ones(batch, seq, dtype=torch.bool), n_heads):
        n_keys = tile.stop if is_causal else key.shape[2]
        scores = _scores(query[tile.samples, :, tile.queries], key[tile.samples, :, :n_keys], None, scale * _LOG2_E)
        if mask is not None:
            scores = _masked(scores, mask[tile.samples, :, tile.queries, :n_keys])
        if is_causal:
            scores[..., tile.queries].masked_fill_(_future(tile.stop - tile.start, scores.device), -torch.inf)
        highest = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        shares = scores.sub_(highest).exp2_()  # not yet divided by their sum
        divisor = shares.sum(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).tiny).reciprocal_()
        output[tile.samples, :, tile.queries] = _weighted(shares, value[tile.samples, :, :n_keys]).mul_(divisor)
        if weights is not None and received is not None:
            counts = weights[tile.samples, :, None, tile.queries] * divisor[:, None, ..., 0] / n_heads
            received[tile.samples, :, :n_keys] += counts.flatten(2) @ shares.flatten(1, 2)
    return output, received


def _weighted(shares: Tensor, value: Tensor) -> Tensor:
    """Sum of the values by shares; `[sample, head, queries, dim]`."""
    groups, n_keys = value.shape[0] * value.shape[1], value.shape[2]
    product = torch.bmm(shares.view(groups, -1, n_keys), value.reshape(groups, n_keys, -1))
    return product.view(*shares.shape[:3], -1)


def _in_powers_of_two(mask: Tensor | None, batch: int, seq: int) -> Tensor | None:
    """The mask for scores whose powers are of two, one line for each sample and query."""
    if mask is None:
        return None
    mask = mask if mask.dtype == torch.bool else mask * _LOG2_E
    return mask.expand(batch, -1, seq, -1)


def _scores(query: Tensor, key: Tensor, added: Tensor | None, scale: float) -> Tensor:
    """`q·k * scale + added` in float32, `[batch, head, queries, keys]`; queries of grouped heads share one product."""
    groups, n_keys, dim = query.shape[0] * key.shape[1], key.shape[2], query.shape[-1]
    left = query.reshape(groups, -1, dim)
    right = key.reshape(groups, n_keys, dim).transpose(-1, -2)
    if added is None:
        scores = torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)
    elif query.device.type == "cuda" and query.dtype != torch.float32:
        product = torch.bmm(left, right, out_dtype=torch.float32)
        scores = product.mul_(scale).add_(added.reshape(groups, -1, 1))
    else:
        scores = torch.baddbmm(added.reshape(groups, -1, 1), left.float(), right.float(), alpha=scale)
    return scores.view(*query.shape[:3], n_keys)


def _tiles(is_counted: Tensor, n_heads: int) -> Iterator[Piece]:
    """Pieces of the batch whose scores stay within the memory bound, without queries that count nowhere."""
    batch, seq = is_counted.shape
    if is_counted.device.type != "cpu":
        step = max(16, min(_GPU_QUERIES, _CHUNK_ELEMENTS // (batch * n_heads * seq)))
        yield from (Piece(slice(0, batch), start, min(start + step, seq)) for start in range(0, seq, step))
    else:
        yield from _cache_tiles(is_counted, n_heads)


def _cache_tiles(is_counted: Tensor, n_heads: int) -> Iterator[Piece]:
    """Pieces whose scores stay in the cache of a CPU's cores, from each piece's first counted query to its last."""
    batch, seq = is_counted.shape
    n_samples = max(1, torch.get_num_threads() * _CACHE_ELEMENTS // (n_heads * seq * _CPU_QUERIES))
    for first in range(0, batch, n_samples):
        samples = slice(first, min(first + n_samples, batch))
        counted = is_counted[samples].any(0).nonzero()
        if len(counted):
            begin, end = int(counted[0]), int(counted[-1]) + 1
            for start in range(begin, end, _CPU_QUERIES):
                yield Piece(samples, start, min(start + _CPU_QUERIES, end))


def _chunks(query: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose scores against all keys stay within the memory bound."""
    batch, n_heads, seq, _ = query.shape
    step = max(16, _CHUNK_ELEMENTS // (batch * n_heads * seq))
    for start in range(0, seq, step):
        yield start, min(start + step, seq)


def match_heads(states: Tensor, n_heads: int) -> Tensor:
    """Repeat grouped key or value heads so that there is one for each query head."""
    return states if states.shape[1] == n_heads else states.repeat_interleave(n_heads // states.shape[1], dim=1)


def _restrict(scores: Tensor, mask: Tensor | None, start: int, stop: int, is_causal: bool) -> Tensor:
    """Set the scores `[batch, head, start:stop, keys]` that may not be attended to minus infinity."""
    if mask is not None:
        scores = _masked(scores, mask[..., start:stop, :] if mask.shape[-2] > 1 else mask)
    if is_causal:
        positions = torch.arange(scores.shape[-1], device=scores.device)
        is_future = positions > torch.arange(start, stop, device=scores.device)[:, None]
        scores = scores.masked_fill(is_future, -torch.inf)
    return scores


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Minus infinity where a boolean mask is False; an additive one added."""
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def _future(size: int, device: torch.device) -> Tensor:
    """True where a key of a square tile comes after its query; `[size, size]`."""
    return torch.ones(size, size, dtype=torch.bool, device=device).triu_(1)


def _pool_heads(shares: Tensor, weights: Tensor) -> Tensor:
    """`[batch, head, chunk, keys]` and `[batch, pool, chunk]` to the weighted sum over queries, mean over heads."""
    batch, n_heads, n_queries, n_keys = shares.shape
    per_head = weights[:, :, None].expand(-1, -1, n_heads, -1).reshape(batch, -1, n_heads * n_queries)
    return per_head.float() @ shares.float().reshape(batch, n_heads * n_queries, n_keys) / n_heads


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over keys in float32; rows that may attend to nothing become zeros, a sink takes its share."""
    scores = scores.float()
    if sinks is not None:
        column = sinks.float().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        return torch.cat([scores, column], dim=-1).softmax(-1)[..., :-1]
    return scores.softmax(-1).nan_to_num(0.0)
