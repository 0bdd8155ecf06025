"""Random attention inputs, drawn anew each time, and attention by the definition in float64."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MaskKind = Literal["none", "causal", "padded", "window", "bias"]


@dataclass(frozen=True)
class Shape:
    batch: int = 3
    n_heads: int = 4
    n_key_heads: int = 4
    seq: int = 77
    head_dim: int = 16
    n_pools: int = 2


@dataclass(frozen=True)
class AttentionInputs:
    """mask: what the kernel is given beside is_causal. weights: zero at the padding of the right end."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    weights: Tensor
    scale: float
    is_causal: bool


def draw(
    shape: Shape, kind: MaskKind = "causal", dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> AttentionInputs:
    """Inputs as the models give them: transposed views, a sample's padding on the right."""
    query, key, value = (
        torch.randn(shape.batch, shape.seq, heads, shape.head_dim, device=device).to(dtype).transpose(1, 2)
        for heads in (shape.n_heads, shape.n_key_heads, shape.n_key_heads)
    )
    lengths = torch.randint(max(1, shape.seq // 2), shape.seq + 1, (shape.batch, 1), device=device)
    is_token = torch.arange(shape.seq, device=device) < lengths
    weights = torch.rand(shape.batch, shape.n_pools, shape.seq, device=device) * is_token[:, None]
    weights[:, -1] *= torch.arange(shape.seq, device=device) >= lengths // 2  # a pool of the later queries alone
    mask = _mask(kind, is_token, shape)
    return AttentionInputs(query, key, value, mask, weights, 0.8 * shape.head_dim**-0.5, kind == "causal")


def _mask(kind: MaskKind, is_token: Tensor, shape: Shape) -> Tensor | None:
    positions = torch.arange(shape.seq, device=is_token.device)
    is_past = positions <= positions[:, None]
    if kind == "padded":
        return (is_past & is_token[:, None])[:, None]
    if kind == "window":
        return (is_past & (positions > positions[:, None] - 9))[None, None]
    if kind == "bias":
        bias = torch.randn(1, shape.n_heads, shape.seq, shape.seq, device=is_token.device)
        return bias.masked_fill(~is_past, -torch.inf)
    return None


def by_definition(inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the log-sum-exp and the attention received, in float64."""
    group = inputs.query.shape[1] // inputs.key.shape[1]
    query = inputs.query.double()
    key, value = (states.double().repeat_interleave(group, 1) for states in (inputs.key, inputs.value))
    scores = query @ key.transpose(-1, -2) * inputs.scale
    if inputs.is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    if inputs.mask is not None:
        is_bool = inputs.mask.dtype == torch.bool
        scores = scores.masked_fill(~inputs.mask, -torch.inf) if is_bool else scores + inputs.mask.double()
    shares = scores.softmax(-1).nan_to_num(0.0)
    received = torch.einsum("bhqk,bpq->bpk", shares, inputs.weights.double()) / query.shape[1]
    return shares @ value, scores.logsumexp(-1), received


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the size of what is expected; not a number counts as infinite."""
    difference = (found.double() - expected).norm() / expected.norm()
    return float(difference.nan_to_num(torch.inf))
