"""Share a budget out over strata: proportional or more even, within bounds, in whole rows. Numpy only."""

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError

Counts = NDArray[np.int64]

_HALVINGS = 200


def share_out(n_keep: int, sizes: Counts, temperature: float = 1.0, minimum: int = 0) -> Counts:
    """Whole numbers that add up to `n_keep` (at most what there is), none above its size; largest remainders first.

    temperature: 1 shares by size, larger evens the shares out: size ** (1 / temperature).
    minimum: what every stratum gets first, or all of it where it has fewer rows.

    A larger stratum never gets less than a smaller one. Raises SettingsError if the minimum exceeds the budget.
    """
    n_keep = min(n_keep, int(sizes.sum()))
    least = np.minimum(sizes, minimum)
    if least.sum() > n_keep:
        raise SettingsError(
            f"min_per_stratum={minimum}: the {np.count_nonzero(sizes)} strata need {least.sum()} rows, "
            f"but {n_keep} are kept; keep more, lower it, or use coarser strata"
        )
    wanted = _clipped_shares(n_keep, sizes, least, temperature)
    budgets = np.clip(np.floor(np.round(wanted, 9)), least, sizes).astype(np.int64)
    while (n_missing := n_keep - int(budgets.sum())) > 0:
        remainder = np.where(budgets < sizes, np.round(wanted - budgets, 9), -np.inf)  # ties must be seen
        n_open = np.count_nonzero(budgets < sizes)
        budgets[np.lexsort((-sizes, -remainder))[: min(n_missing, n_open)]] += 1
    return budgets


def _clipped_shares(amount: int, sizes: Counts, least: Counts, temperature: float) -> NDArray[np.float64]:
    """Shares of `amount` in proportion to size ** (1 / temperature), but at least `least` and at most the size.

    Their sum rises with the level that the weights are multiplied by, so halving finds it; weights may differ by a
    factor of 1e20, which sums of differences wouldn't survive.
    """
    is_open = sizes > 0
    weights = np.where(is_open, (sizes / max(1, sizes.max())) ** (1 / temperature), 1.0)
    low, high = 0.0, float((sizes / weights).max(initial=0.0))
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        if np.clip(level * weights, least, sizes).sum() < amount:
            low = level
        else:
            high = level
    return np.where(is_open, np.clip(high * weights, least, sizes), 0.0)
