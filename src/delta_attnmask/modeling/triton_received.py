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


def add_received(
    received: Tensor,
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    weights: Tensor,
    spans: Tensor,
    *,
    scale: float,
    is_causal: bool,
) -> None:
    """Add to `received` what each key gets: `sum_q weight[q] * exp(q·k * scale - lse[q])`, head by head.

    received: `[batch, head, pool, seq]`, float32, contiguous. query: `[batch, head, seq, dim]`; key may have fewer
    heads (grouped). lse: `[batch, head, seq]`. weights: `[batch, pool, seq]`, float32, contiguous.
    spans: `[batch, 2]`, int32: each sample's first query that counts, and one past its last; others cost nothing.
    """
    query, key = (states if states.stride(-1) == 1 else states.contiguous() for states in (query, key))
    lse = lse.contiguous()
    batch, n_heads, seq, head_dim = query.shape
    row_bytes = head_dim * query.element_size()
    block = _BLOCK if row_bytes <= _WIDE_ROW_BYTES else _WIDE_BLOCK
    for pool in range(0, weights.shape[1], 2):
        _add_received[(triton.cdiv(seq, block), n_heads, batch)](
            query,
            key,
            lse,
            weights,
            spans,
            received,
            *query.stride()[:3],
            *key.stride()[:3],
            seq,
            n_heads,
            weights.shape[1],
            pool,
            scale * _LOG2_E,
            LOG2_E=_LOG2_E,
            GROUP=n_heads // key.shape[1],
            HEAD_DIM=head_dim,
            BLOCK_DIM=max(16, triton.next_power_of_2(head_dim)),
            BLOCK=block,
            IS_CAUSAL=is_causal,
            HAS_SECOND=pool + 1 < weights.shape[1],
            num_warps=4,
            num_stages=2 if row_bytes <= 256 else 1,
        )


def launch_once(device: torch.device) -> None:
    """Compile the kernel and run it on one token of one head; raises whatever keeps Triton from that."""
    one = torch.ones(1, 1, 1, 16, device=device)
    received, spans = torch.zeros(1, 1, 1, 1, device=device), torch.tensor([[0, 1]], dtype=torch.int32, device=device)
    with torch.cuda.device_of(received):  # type: ignore[no-untyped-call]
        add_received(received, one, one, one[..., 0], one[0, ..., :1], spans, scale=1.0, is_causal=True)
        received.item()  # waits for what only the device can refuse


@triton.jit  # type: ignore[untyped-decorator]
def _add_received(  # type: ignore[no-untyped-def]
    query,
    key,
    lse,
    weights,
    spans,
    received,
    query_batch,
    query_head,
    query_seq,
    key_batch,
    key_head,
    key_seq,
    seq,
    n_heads,
    n_pools,
    pool,
    scale,
    LOG2_E: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    HAS_SECOND: tl.constexpr,
):
    first_key = tl.program_id(0) * BLOCK
    head = tl.program_id(1)
    sample = tl.program_id(2).to(tl.int64)
    begin = tl.load(spans + 2 * sample)
    end = tl.load(spans + 2 * sample + 1)
    if IS_CAUSAL:
        begin = tl.maximum(begin, first_key)  # earlier queries can't see these keys
    keys = first_key + tl.arange(0, BLOCK)
    dims = tl.arange(0, BLOCK_DIM)
    is_key, is_dim = keys < seq, dims < HEAD_DIM
    key_start = key + sample * key_batch + (head // GROUP) * key_head
    key_places = key_start + keys[:, None] * key_seq + dims[None, :]
    key_tile = tl.load(key_places, mask=is_key[:, None] & is_dim[None, :], other=0.0)
    query_start = query + sample * query_batch + head * query_head
    lse_start = lse + (sample * n_heads + head) * seq
    weight_start = weights + (sample * n_pools + pool) * seq
    sums = tl.zeros([BLOCK, BLOCK], tl.float32)
    second_sums = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(begin // BLOCK * BLOCK, end, BLOCK):
        queries = start + tl.arange(0, BLOCK)
        is_query = queries < end
        query_places = query_start + dims[:, None] + queries[None, :] * query_seq
        query_tile = tl.load(query_places, mask=is_dim[:, None] & is_query[None, :], other=0.0)
        weight = tl.load(weight_start + queries, mask=is_query, other=0.0)
        is_counted = weight != 0
        if HAS_SECOND:
            second = tl.load(weight_start + seq + queries, mask=is_query, other=0.0)
            is_counted = is_counted | (second != 0)
        # A query that counts nowhere may have any log-sum-exp, also minus infinity.
        offset = tl.load(lse_start + queries, mask=is_query & is_counted, other=float("inf")) * LOG2_E
        shares = tl.exp2(tl.dot(key_tile, query_tile, input_precision="tf32x3") * scale - offset[None, :])
        if IS_CAUSAL:
            shares = tl.where(queries[None, :] >= keys[:, None], shares, 0.0)
        sums += shares * weight[None, :]
        if HAS_SECOND:
            second_sums += shares * second[None, :]
    slot = received + ((sample * n_heads + head) * n_pools + pool) * seq + keys
    tl.store(slot, tl.load(slot, mask=is_key, other=0.0) + tl.sum(sums, 1), mask=is_key)
    if HAS_SECOND:
        slot += seq
        tl.store(slot, tl.load(slot, mask=is_key, other=0.0) + tl.sum(second_sums, 1), mask=is_key)
