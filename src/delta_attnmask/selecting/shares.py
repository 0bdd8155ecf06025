"""Share a budget out over strata: proportional or more even, within bounds, in whole rows. Numpy only."""

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError

Counts = NDArray[np.int64]

_HALVINGS = 200
_LOG_NOTHING = -50.0  # the logarithm of a share that is no row


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
    if n_missing:
        raise SettingsError(f"temperature={temperature}: {n_keep} rows can't be shared out so; choose a higher one")
    return budgets


def _clipped_shares(amount: int, sizes: Counts, least: Counts, temperature: float) -> NDArray[np.float64]:
    """Shares of `amount` in proportion to size ** (1 / temperature), but at least `least` and at most the size.

    Their sum rises with the level that these weights are multiplied by, so halving finds where it is the amount. That
    tells which strata get all of their rows and which the least; the others share the rest. Level and weights are
    logarithms there, since weights may differ by any factor.
    """
    log_sizes = np.log(np.maximum(sizes, 1))
    log_weights = log_sizes / temperature
    low = _LOG_NOTHING - log_weights.max(initial=0.0)
    high = (log_sizes - log_weights).max(initial=low)
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        if _at_level(level + log_weights, sizes, least).sum() < amount:
            low = level
        else:
            high = level
    shares = _at_level(high + log_weights, sizes, least)
    is_between = (shares > least) & (shares < sizes)
    if is_between.any():
        between = sizes[is_between]
        weights = (between / between.max()) ** (1 / temperature)
        shares[is_between] = (amount - shares[~is_between].sum()) * weights / weights.sum()
    return shares


def _at_level(log_shares: NDArray[np.float64], sizes: Counts, least: Counts) -> NDArray[np.float64]:
    """Shares within their bounds; those of all rows are exactly the size."""
    log_sizes = np.log(np.maximum(sizes, 1))
    return np.clip(np.where(log_shares < log_sizes, np.exp(np.minimum(log_shares, log_sizes)), sizes), least, sizes)
