"""Keep the rows of the highest value; of equal ones, those that come first in the input."""

import numpy as np

from delta_attnmask.selecting.rules import Candidates, Choice, Positions, Rule, Values, one_reason


def top() -> Rule:
    """The plain top. It skews the mix of sources and answers; `quota` doesn't."""
    return keep_top


def keep_top(candidates: Candidates, n_keep: int) -> Choice:
    """O(n) for the choice; only what is kept gets sorted."""
    kept = top_positions(candidates.values, n_keep)
    threshold = float(candidates.values[kept[-1]])
    return one_reason(kept, f"among the {n_keep} highest of {len(candidates)}", threshold=threshold)


def top_positions(values: Values, n_keep: int) -> Positions:
    """The positions of the `n_keep` highest values, highest first, ties to the lower one; values are finite."""
    return best_first(values, top_set(values, n_keep))


def top_set(values: Values, n_keep: int) -> Positions:
    """The same positions in ascending order, in linear time."""
    if n_keep in (0, len(values)):
        return np.arange(n_keep)
    threshold = np.partition(values, len(values) - n_keep)[len(values) - n_keep]
    is_kept = values > threshold
    level = np.flatnonzero(values == threshold)
    is_kept[level[: n_keep - np.count_nonzero(is_kept)]] = True
    return np.flatnonzero(is_kept)


def best_first(values: Values, positions: Positions) -> Positions:
    """`positions`, which ascend, by falling value; ties to the lower one."""
    return positions[np.argsort(-values[positions], kind="stable")]
