"""Entropy of the prediction, mean over answer tokens, in nats; costs no forward. Shannon's definition."""

from torch import Tensor

from delta_attnmask.scoring.rivals import TokenRival


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    log_probability = logits.log_softmax(-1)
    return -(log_probability.exp() * log_probability).sum(-1)


RIVAL = TokenRival(_entropy)
