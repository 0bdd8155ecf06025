"""What a masked hidden state becomes. Pure tensor functions."""

import torch
from torch import Tensor

from delta_attnmask.settings import Replacement


def replace_states(states: Tensor, is_masked: Tensor, is_token: Tensor, replacement: Replacement) -> Tensor:
    """A copy of `states` in which masked positions are replaced.

    states: `[..., batch, seq, hidden]`; leading dimensions (Gemma 3n's parallel streams) are treated alike.
    is_masked, is_token: `[batch, seq]`.
    """
    if replacement == "zero":
        return states.masked_fill(is_masked[..., None], 0)
    weight = is_token[..., None].to(torch.float32)
    mean = (states.float() * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
    return torch.where(is_masked[..., None], mean.to(states.dtype), states)
