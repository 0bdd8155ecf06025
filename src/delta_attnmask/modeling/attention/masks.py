"""Recognises the attention masks that say nothing but "causal, padded on the right"."""

import torch
from torch import Tensor

from delta_attnmask.batches import TokenRoles


class MaskReader:
    """Tells for each mask of one forward whether a kernel can do without it.

    Under "causal, padded on the right" no real token can see the padding behind it, so no mask is needed, and kernels
    without one are faster. Each mask is looked at once: one device synchronisation a mask, not a block.
    """

    def __init__(self, roles: TokenRoles):
        self._is_token = roles.is_token
        self._known: dict[int, tuple[Tensor, bool]] = {}

    def simplify(self, mask: Tensor | None, is_causal: bool) -> tuple[Tensor | None, bool]:
        """The mask to use, and whether the kernel shall mask the future itself."""
        if mask is None:
            return None, is_causal
        if id(mask) not in self._known:
            # Holding the mask keeps its id from being reused within this forward.
            self._known[id(mask)] = (mask, self._is_plain_causal(mask))
        return (None, True) if self._known[id(mask)][1] else (mask, is_causal)

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
