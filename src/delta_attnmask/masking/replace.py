"""What a masked hidden state becomes. Pure tensor functions."""

import torch
from torch import Tensor

from delta_attnmask.settings import Replacement


def replacement_state(states: Tensor, is_token: Tensor, replacement: Replacement) -> Tensor:
    """What each sample's masked states become: zeros, or the mean of its tokens' states; `[..., batch, 1, hidden]`.

    states: `[..., batch, seq, hidden]`; leading dimensions (Gemma 3n's parallel streams) are treated alike.
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
