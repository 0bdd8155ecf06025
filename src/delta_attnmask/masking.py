"""Which tokens are masked (eligibility, order, share), and what their states become. Pure tensor functions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from delta_attnmask.batches import TokenRoles
from delta_attnmask.settings import Exclude, Order, Queries, Replacement, Tokens


def counted_queries(roles: TokenRoles, queries: Queries) -> Tensor:
    """True where a position's attention counts; `[batch, seq]`."""
    return roles.is_token if queries == "all" else roles.predicts_answer


def eligible_tokens(roles: TokenRoles, tokens: Tokens, exclude: Exclude = "none") -> Tensor:
    """True where a token may be masked; `[batch, seq]`."""
    eligible = roles.is_token
    if tokens == "prompt":
        eligible = eligible & ~roles.is_answer
    elif tokens == "image":
        eligible = eligible & roles.is_image
    if exclude != "none":
        eligible = eligible & ~roles.is_first
    if exclude == "special":
        eligible = eligible & ~roles.is_special
    return eligible


def n_masked(n_eligible: Tensor, fraction: float, seq: int) -> Tensor:
    """How many tokens are masked: `max(1, floor(fraction * n + 0.5))`, none where nothing is eligible; `[batch]`.

    n_eligible: `[batch]`, none above `seq`. Rounded in float64 on the CPU, for every number up to `seq`: Apple's GPUs
    have no float64, and no device is waited for.
    """
    numbers = torch.arange(seq + 1)
    rounded = torch.floor(numbers.double() * fraction + 0.5).long()
    at_least_one = rounded.clamp(min=1 if fraction > 0 else 0)
    return torch.minimum(at_least_one, numbers).to(n_eligible.device)[n_eligible]


def choose_tokens(priority: Tensor, eligible: Tensor, fraction: float) -> Tensor:
    """True for the share of eligible tokens of highest priority, ties to the lower position; `[batch, seq]`.

    priority: floating, or whole numbers from 0.
    """
    lowest = -torch.inf if priority.is_floating_point() else -1
    ranked = priority.masked_fill(~eligible, lowest).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(ranked)
    rank.scatter_(-1, ranked, torch.arange(ranked.shape[-1], device=ranked.device).expand_as(ranked))
    return eligible & (rank < n_masked(eligible.sum(-1), fraction, eligible.shape[-1])[:, None])


def priority(saliency: Tensor, order: Order, seeds: Tensor, is_token: Tensor) -> Tensor:
    """What tokens are ranked by: saliency, its negative, or random numbers made of a sample's seed; `[batch, seq]`."""
    if order == "most":
        return saliency
    if order == "least":
        return -saliency
    return random_numbers(seeds, is_token.cumsum(-1))


def sample_seeds(inputs: Mapping[str, Any], roles: TokenRoles) -> Tensor:
    """One number for each sample, made of its tokens, so that random orders don't depend on the batch; `[batch]`."""
    ids = inputs["input_ids"] if inputs.get("input_ids") is not None else roles.is_token.long()
    order = roles.is_token.cumsum(-1)
    return (ids * order * roles.is_token).sum(-1) & 0x7FFF_FFFF


def random_numbers(seeds: Tensor, places: Tensor) -> Tensor:
    """Whole numbers from 0 to below 2^31, `[batch, place]`, int64: a hash (xorshift-multiply) of seed and place.

    The same for a sample in any batch, on any device. seeds: `[batch]`. places: `[batch, place]`.
    """
    state = (seeds[:, None] * 1_000_003 + places) & 0x7FFF_FFFF
    for multiplier in (0x45D9F3B, 0x119DE1F3, 0x2C1B3C6D):
        state = ((state ^ (state >> 16)) * multiplier) & 0x7FFF_FFFF
    return state


def replacement_state(states: Tensor, is_token: Tensor, replacement: Replacement) -> Tensor:
    """What each sample's masked states become: zeros, or the mean of its tokens' states; `[..., batch, 1, hidden]`.

    states: `[..., batch, seq, hidden]`; leading dimensions (Gemma 3n's parallel streams) are treated the same.
    is_token: `[batch, seq]`; on any device, since a model may be spread over several.
    """
    if replacement == "zero":
        return torch.zeros_like(states[..., :1, :])
    weight = is_token[..., None].to(states.device, torch.float32)
    mean = (states.float() * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
    return mean.to(states.dtype)


def replace_states(states: Tensor, is_masked: Tensor, is_token: Tensor, replacement: Replacement) -> Tensor:
    """A copy of `states` in which masked positions are replaced.

    states: `[..., batch, seq, hidden]`. is_masked, is_token: `[batch, seq]`, on any device.
    """
    return torch.where(is_masked[..., None].to(states.device), replacement_state(states, is_token, replacement), states)
