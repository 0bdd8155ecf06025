"""Attention on a CPU by tiles whose scores stay in a core's cache: output and attention received from the same scores.

A flash kernel throws its scores away, so that what each token receives costs the product of queries and keys, and the
exponentials, once more. Here they are computed once: as fast as the flash kernel alone, at the sizes measured.
"""

import math

import torch
from torch import Tensor

from delta_attnmask.modeling.attention.plain import cache_tiles, future, in_powers_of_two, masked

_LOG2_E = math.log2(math.e)


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
    mask = in_powers_of_two(mask, batch, seq)
    output = query.new_empty(batch, n_heads, seq, value.shape[-1])
    received = None if weights is None else weights.new_zeros(weights.shape, dtype=torch.float32)
    for tile in cache_tiles(query.new_ones(batch, seq, dtype=torch.bool), n_heads):
        n_keys = tile.stop if is_causal else key.shape[2]
        scores = _scores(query[tile.samples, :, tile.queries], key[tile.samples, :, :n_keys], scale * _LOG2_E)
        if mask is not None:
            scores = masked(scores, mask[tile.samples, :, tile.queries, :n_keys])
        if is_causal:
            scores[..., tile.queries].masked_fill_(future(tile.stop - tile.start, scores.device), -torch.inf)
        highest = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        shares = scores.sub_(highest).exp2_()  # not yet divided by their sum
        divisor = shares.sum(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).tiny).reciprocal_()
        output[tile.samples, :, tile.queries] = _weighted(shares, value[tile.samples, :, :n_keys]).mul_(divisor)
        if weights is not None and received is not None:
            counts = weights[tile.samples, :, None, tile.queries] * divisor[:, None, ..., 0] / n_heads
            received[tile.samples, :, :n_keys] += counts.flatten(2) @ shares.flatten(1, 2)
    return output, received


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """`q·k * scale`, `[sample, head, queries, keys]`; queries of grouped heads share one product."""
    groups, n_keys = query.shape[0] * key.shape[1], key.shape[2]
    left, right = query.reshape(groups, -1, query.shape[-1]), key.reshape(groups, n_keys, -1).transpose(-1, -2)
    scores = torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)
    return scores.view(*query.shape[:3], n_keys)


def _weighted(shares: Tensor, value: Tensor) -> Tensor:
    """Sum of the values by shares; `[sample, head, queries, dim]`."""
    groups, n_keys = value.shape[0] * value.shape[1], value.shape[2]
    product = torch.bmm(shares.view(groups, -1, n_keys), value.reshape(groups, n_keys, -1))
    return product.view(*shares.shape[:3], -1)
