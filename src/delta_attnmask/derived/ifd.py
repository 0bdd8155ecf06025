"""Instruction-following difficulty: `loss / loss_alone`, the answer with its prompt over the answer by itself.

From 1 on the prompt doesn't help, and the row is left out (-inf). Li et al., arXiv:2308.12032.
"""

import numpy as np

from delta_attnmask.derived import Column


def ifd(loss: Column, loss_alone: Column) -> Column:
    ratio = loss / loss_alone
    return np.where(ratio < 1, ratio, np.where(np.isnan(ratio), np.nan, -np.inf))
