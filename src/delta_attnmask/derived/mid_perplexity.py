"""Nearness to the median perplexity: `-|rank - 0.5|`, ranks from 0 to 1 over all scored rows.

The middle band of perplexity as a selector: Marion et al., "When Less is More" (arXiv:2309.04564).
"""

import numpy as np

from delta_attnmask.derived import Column
from delta_attnmask.statistics import midranks


def mid_perplexity(loss: Column) -> Column:
    is_scored = np.isfinite(loss)
    ranks = midranks(np.where(is_scored, loss, np.nan)) - 1
    n_steps = max(1, int(np.count_nonzero(is_scored)) - 1)
    return -np.abs(ranks / n_steps - 0.5)
