"""Margin: the target's probability minus the best other one's, mean over answer tokens, -1 to 1; costs no forward.

The margin of Pleiss et al. (area under the margin, arXiv:2001.10528), in probability and at one checkpoint.
"""

import torch
from torch import Tensor

from delta_attnmask.scoring.rivals import TokenRival


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.softmax(-1)
    of_target = probability.gather(-1, targets[:, None])[:, 0]
    others = probability.scatter(-1, targets[:, None], -torch.inf)
    return of_target - others.amax(-1)


RIVAL = TokenRival(_margin)
