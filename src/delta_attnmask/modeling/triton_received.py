"""Attention received on CUDA in one kernel a block: no seq×seq map, no atomics, the same result each time.

Imports triton, so it is imported only where the kernel is wanted.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64  # keys of a program, and queries of one step
_WIDE_BLOCK = 32  # the same for rows too wide for that many in shared memory
_WIDE_ROW_BYTES = 512
_LOG2_E = math.log2(math.e)


def received_columns(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    weights: Tensor,
    spans: Tensor,
    *,
    scale: float,
    is_causal: bool,
) -> Tensor:
    """What each key gets, `sum_q weight[q] * exp(q·k * scale + mask - lse[q])`; `[batch, pool, seq]`, mean over heads.

    query: `[batch, head, seq, dim]`; key may have fewer heads (grouped). lse: `[batch, head, seq]`.
    mask: additive, broadcastable to `[batch, head, seq, seq]`. weights: `[batch, pool, seq]`, float32, contiguous.
    spans: as `counted_spans` gives them; queries outside cost nothing.
    """
    batch, n_heads, seq, head_dim = query.shape
    n_pools, row_bytes = weights.shape[1], head_dim * query.element_size()
    block = _BLOCK if row_bytes <= _WIDE_ROW_BYTES else _WIDE_BLOCK
    received = torch.empty(batch, n_pools, n_heads, seq, device=query.device)
    if mask is not None:
        mask = mask.expand(batch, n_heads, seq, seq)
    _sum_columns[(triton.cdiv(seq, block), n_heads, batch * n_pools)](
        query.contiguous(),
        key.contiguous(),
        lse.contiguous(),
        mask,
        weights,
        spans,
        received,
        *(mask.stride() if mask is not None else (0, 0, 0, 0)),
        seq,
        n_heads,
        n_pools,
        scale * _LOG2_E,
        LOG2_E=_LOG2_E,
        GROUP=n_heads // key.shape[1],
        HEAD_DIM=head_dim,
        BLOCK_DIM=max(16, triton.next_power_of_2(head_dim)),
        BLOCK=block,
        IS_CAUSAL=is_causal,
        HAS_MASK=mask is not None,
        num_warps=4,
        num_stages=2 if row_bytes <= 256 else 1,
    )
    return received.mean(2)


def launch_once(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Compile the kernel, causal and masked, and run it on one token; raises whatever keeps Triton from that."""
    one = torch.zeros(1, 1, 1, head_dim, device=device, dtype=dtype)
    weights, spans = one[0, ..., :1].float(), torch.tensor([[[0, 1]]], dtype=torch.int32, device=device)
    with torch.cuda.device_of(one):  # type: ignore[no-untyped-call]
        for mask in (None, one[..., :1]):
            received = received_columns(
                one, one, one[..., 0].float(), mask, weights, spans, scale=1.0, is_causal=mask is None
            )
        received.sum().item()  # waits for what only the device can refuse


@triton.jit  # type: ignore[untyped-decorator]
def _sum_columns(  # type: ignore[no-untyped-def]
    query,
    key,
    lse,
    mask,
    weights,
    spans,
    received,
    mask_batch,
    mask_head,
    mask_query,
    mask_key,
    seq,
    n_heads,
    n_pools,
    scale,
    LOG2_E: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """One block of keys, one head, one pool of one sample."""
    first_key = tl.program_id(0) * BLOCK
    head = tl.program_id(1)
    pool = tl.program_id(2).to(tl.int64)  # of all samples, one after the other
    sample = pool // n_pools
    begin, end = tl.load(spans + 2 * pool), tl.load(spans + 2 * pool + 1)
    if IS_CAUSAL:
        begin = tl.maximum(begin, first_key)  # earlier queries can't see these keys
    keys, dims = first_key + tl.arange(0, BLOCK), tl.arange(0, BLOCK_DIM)
    is_key, is_dim = keys < seq, dims < HEAD_DIM
    key_start = key + (sample * (n_heads // GROUP) + head // GROUP) * seq * HEAD_DIM
    key_places = key_start + keys[:, None] * HEAD_DIM + dims[None, :]
    key_tile = tl.load(key_places, mask=is_key[:, None] & is_dim[None, :], other=0.0)
    first_query = (sample * n_heads + head) * seq
    sums = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(begin // BLOCK * BLOCK, end, BLOCK):
        queries = start + tl.arange(0, BLOCK)
        weight = tl.load(weights + pool * seq + queries, mask=queries < end, other=0.0)
        is_counted = weight != 0  # any other query may hold anything, also what is no number
        query_places = query + (first_query + queries[None, :]) * HEAD_DIM + dims[:, None]
        query_tile = tl.load(query_places, mask=is_dim[:, None] & is_counted[None, :], other=0.0)
        scores = tl.dot(key_tile, query_tile, input_precision="tf32x3") * scale
        if HAS_MASK:
            mask_start = mask + sample * mask_batch + head * mask_head
            mask_places = mask_start + queries[None, :].to(tl.int64) * mask_query + keys[:, None] * mask_key
            added = tl.load(mask_places, mask=is_key[:, None] & is_counted[None, :], other=0.0)
            scores += tl.maximum(added.to(tl.float32), -1e30) * LOG2_E
        offset = tl.load(lse + first_query + queries, mask=is_counted, other=float("inf")) * LOG2_E
        shares = tl.exp2(scores - offset[None, :])
        if IS_CAUSAL:
            shares = tl.where(queries[None, :] >= keys[:, None], shares, 0.0)
        sums += shares * weight[None, :]
    place = (pool * n_heads + head) * seq + keys
    tl.store(received + place, tl.sum(sums, 1), mask=is_key)
