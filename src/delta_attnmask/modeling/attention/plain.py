"""Attention and what each key receives of it, in plain torch: right everywhere, and the yardstick of the other backends.

Works through the queries chunk by chunk, so that no seq×seq map of the whole batch ever exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 24  # of one chunk's scores: 64 MiB in float32


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
    for start, stop in chunks(query):
        scores = query[:, :, start:stop] @ key.transpose(-1, -2) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = restrict(scores, mask, start, stop, is_causal)
        shares = _softmax(scores, sinks)
        outputs.append(shares.to(value.dtype) @ value)
        if received is not None and weights is not None:
            received += pool_heads(shares, weights[:, :, start:stop])
    return torch.cat(outputs, dim=2), received


def column_sums(
    query: Tensor, key: Tensor, lse: Tensor, mask: Tensor | None, weights: Tensor, *, scale: float, is_causal: bool
) -> Tensor:
    """Attention received, from the log-sum-exp of a fast kernel: `sum_q weight[q] * exp(q·k * scale - lse[q])`.

    lse: `[batch, head, seq]`. Queries that no pool counts are skipped, whatever their log-sum-exp.
    Returns `[batch, pool, seq]` averaged over heads, float32.
    """
    key = match_heads(key, query.shape[1])
    is_counted = (weights != 0).any(1)[:, None]
    lse = lse.float().masked_fill(~is_counted, torch.inf)
    received = weights.new_zeros(weights.shape, dtype=torch.float32)
    for start, stop in chunks(query):
        n_keys = stop if is_causal else key.shape[2]
        scores = (query[:, :, start:stop] * scale) @ key[:, :, :n_keys].transpose(-1, -2)
        scores = restrict(scores.float(), mask, start, stop, is_causal)
        shares = scores.sub_(lse[:, :, start:stop, None]).exp_()
        received[:, :, :n_keys] += pool_heads(shares, weights[:, :, start:stop])
    return received


def chunks(query: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose scores against all keys stay within the memory bound."""
    batch, n_heads, seq, _ = query.shape
    step = max(16, _CHUNK_ELEMENTS // (batch * n_heads * seq))
    for start in range(0, seq, step):
        yield start, min(start + step, seq)


def match_heads(states: Tensor, n_heads: int) -> Tensor:
    """Repeat grouped key or value heads so that there is one for each query head."""
    return states if states.shape[1] == n_heads else states.repeat_interleave(n_heads // states.shape[1], dim=1)


def restrict(scores: Tensor, mask: Tensor | None, start: int, stop: int, is_causal: bool) -> Tensor:
    """Set the scores `[batch, head, start:stop, keys]` that may not be attended to minus infinity."""
    n_keys = scores.shape[-1]
    if mask is not None:
        part = mask[..., start:stop, :n_keys] if mask.shape[-2] > 1 else mask[..., :n_keys]
        scores = scores.masked_fill(~part, -torch.inf) if part.dtype == torch.bool else scores + part
    if is_causal:
        positions = torch.arange(n_keys, device=scores.device)
        is_future = positions > torch.arange(start, stop, device=scores.device)[:, None]
        scores = scores.masked_fill(is_future, -torch.inf)
    return scores


def pool_heads(shares: Tensor, weights: Tensor) -> Tensor:
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
