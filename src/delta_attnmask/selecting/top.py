"""Keep the rows of the highest value; of equal ones, those that come first in the input."""

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.selecting.rules import Candidates, Choice


def keep_top(candidates: Candidates, n_keep: int) -> Choice:
    """O(n) for the choice; only what is kept gets sorted."""
    kept = top_positions(candidates.values, n_keep)
    threshold = float(candidates.values[kept[-1]])
    reason = f"among the {n_keep} highest of {len(candidates.values)}"
    return Choice(kept, (reason,), np.zeros(n_keep, dtype=np.int32), {"threshold": threshold})


def top_positions(values: NDArray[np.float64], n_keep: int) -> NDArray[np.intp]:
    """The positions of the `n_keep` highest values, highest first, ties to the lower one; values are finite."""
    threshold = np.partition(values, len(values) - n_keep)[len(values) - n_keep]
    above = np.flatnonzero(values > threshold)
    level = np.flatnonzero(values == threshold)[: n_keep - len(above)]
    return np.concatenate([above[np.argsort(-values[above], kind="stable")], level])
