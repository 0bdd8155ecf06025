"""Recognises the attention masks that say nothing but "causal, padded on the right"."""

import operator
from collections import deque

import torch
from torch import Tensor

from delta_attnmask.batches import TokenRoles

_N_KEPT = 4  # masks: a model has one or two kinds of them


class MaskReader:
    """Tells for each mask of one forward whether a kernel can do without it.

    Under "causal, padded on the right" no real token can see the padding behind it, so no mask is needed, and kernels
    without one are faster. Each mask is looked at once: one device synchronisation a mask, not a block. Where a model
    is spread over devices, each block gets a copy of its own: it is compared with the latest masks and not kept.
    """

    def __init__(self, roles: TokenRoles):
        self._is_token = roles.is_token
        self._latest: deque[tuple[Tensor, bool]] = deque(maxlen=_N_KEPT)

    def simplify(self, mask: Tensor | None, is_causal: bool) -> tuple[Tensor | None, bool]:
        """The mask to use, and whether the kernel shall mask the future itself."""
        if mask is None:
            return None, is_causal
        return (None, True) if self._needs_none(mask) else (mask, is_causal)

    def _needs_none(self, mask: Tensor) -> bool:
        for is_same in (operator.is_, _is_copy):  # the latter waits for the device
            for latest, needs_none in self._latest:
                if is_same(latest, mask):
                    return needs_none
        self._latest.append((mask, self._is_plain_causal(mask)))
        return self._latest[-1][1]

    def _is_plain_causal(self, mask: Tensor) -> bool:
        is_token = self._is_token.to(mask.device)
        seq = is_token.shape[1]
        if mask.ndim != 4 or mask.shape[-2:] != (seq, seq) or mask.shape[0] not in (1, len(is_token)):
            return False
        positions = torch.arange(seq, device=mask.device)
        is_right_padded = (is_token == (positions < is_token.sum(-1, keepdim=True))).all()
        expected = (positions <= positions[:, None]) & is_token[:, None, None]
        may_attend = mask if mask.dtype == torch.bool else mask == 0
        agrees = ((may_attend == expected) | ~is_token[:, None, :, None]).all()
        if mask.dtype != torch.bool:  # a bias that is added to some scores is more than a mask
            agrees &= (may_attend | (mask <= torch.finfo(mask.dtype).min)).all()
        return bool(is_right_padded & agrees)


def _is_copy(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
