"""Nearness to the median perplexity: `-|rank - 0.5|`, ranks from 0 to 1 over all scored rows.

The middle band of perplexity as a selector: Marion et al., "When Less is More" (arXiv:2309.04564).
"""

import numpy as np

from delta_attnmask.derived import Column


def mid_perplexity(loss: Column) -> Column:
    ranks = np.full(loss.shape, np.nan)
    is_scored = np.isfinite(loss)
    order = np.argsort(np.argsort(loss[is_scored], kind="stable"), kind="stable")
    ranks[is_scored] = order / max(1, order.size - 1)
    return -np.abs(ranks - 0.5)
