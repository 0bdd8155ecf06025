"""Share of all attention that the image tokens receive, 0 to 1 (0 for text-only rows); costs no forward.

All queries count, whatever the settings say that the mask is chosen by, so that the column means the same in every run.
"""

from torch import Tensor

from delta_attnmask.batches import TokenRoles
from delta_attnmask.scoring.rivals import AttentionRival


def _image_share(saliency: Tensor, roles: TokenRoles) -> Tensor:
    return (saliency * roles.is_image).sum(-1) / saliency.sum(-1)


RIVAL = AttentionRival(_image_share)
