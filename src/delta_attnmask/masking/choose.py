"""Which tokens are masked: eligibility and the most attended share. Pure tensor functions."""

import torch
from torch import Tensor

from delta_attnmask.batches import TokenRoles
from delta_attnmask.settings import Tokens


def eligible_tokens(roles: TokenRoles, tokens: Tokens) -> Tensor:
    """True where a token may be masked; `[batch, seq]`."""
    if tokens == "all":
        return roles.is_token
    if tokens == "prompt":
        return roles.is_token & ~roles.is_answer
    return roles.is_token & roles.is_image


def n_masked(n_eligible: Tensor, fraction: float) -> Tensor:
    """How many tokens are masked: `max(1, floor(fraction * n + 0.5))`, none where nothing is eligible; `[batch]`."""
    rounded = torch.floor(n_eligible.double() * fraction + 0.5).long()
    at_least_one = rounded.clamp(min=1 if fraction > 0 else 0)
    return torch.minimum(at_least_one, n_eligible)


def most_attended(saliency: Tensor, eligible: Tensor, fraction: float) -> Tensor:
    """True for the eligible tokens of highest saliency, ties to the lower position; `[batch, seq]`."""
    ranked = saliency.masked_fill(~eligible, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(ranked)
    rank.scatter_(-1, ranked, torch.arange(ranked.shape[-1], device=ranked.device).expand_as(ranked))
    return eligible & (rank < n_masked(eligible.sum(-1), fraction)[:, None])
