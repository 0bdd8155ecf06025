"""EL2N: mean over answer tokens of the 2-norm of `softmax(logits) - onehot(target)`; costs no forward.

Paul et al., "Deep Learning on a Data Diet" (arXiv:2107.07075), taken per token.
"""

from torch import Tensor

from delta_attnmask.scoring.rivals import TokenRival


def _el2n(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.softmax(-1)
    of_target = probability.gather(-1, targets[:, None])[:, 0]
    # The squared norm without the one-hot vector: sum p² - p_t² + (1 - p_t)².
    squared = probability.square().sum(-1) - 2 * of_target + 1
    return squared.clamp(min=0).sqrt()


RIVAL = TokenRival(_el2n)
