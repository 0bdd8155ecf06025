"""Share a budget out over strata, and fill each share from the top of its stratum. Numpy only."""

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Positions
from delta_attnmask.selecting.strata import Strata
from delta_attnmask.statistics import Values

Counts = NDArray[np.int64]

_HALVINGS = 70  # until the level no longer moves
_LOG_NOTHING = -50.0  # the logarithm of a share that is no row


def best_first(values: Values, n_keep: int) -> Positions:
    """The positions of the `n_keep` highest values, highest first, ties to the lower one; values are finite.

    Linear in the rows; only what is kept gets sorted.
    """
    threshold = np.partition(values, -n_keep)[-n_keep] if 0 < n_keep < len(values) else -np.inf
    kept = np.flatnonzero(values >= threshold)
    return kept[np.argsort(-values[kept], kind="stable")][:n_keep]


def fill_budgets(values: Values, strata: Strata, budgets: Counts, skip_top: float = 0.0) -> Positions:
    """The positions of the highest values of each stratum, `budgets` of them; best first over all strata.

    skip_top: share of each stratum that is left out at its top; less where the budget needs it. Ties go to the lower
    position.
    """
    sizes = strata.sizes
    skips = np.minimum((skip_top * sizes).astype(np.int64), sizes - budgets)
    order = best_first(values, len(values))
    codes = strata.codes[order]
    by_stratum = np.argsort(
        codes.astype(np.min_scalar_type(strata.n)), kind="stable"
    )  # small codes sort in linear time
    rank = np.empty(len(order), dtype=np.int64)  # within the stratum
    rank[by_stratum] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept: Positions = order[(rank >= skips[codes]) & (rank < (skips + budgets)[codes])]
    return kept


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
        raise SettingsError(f"temperature={temperature}: {n_keep} rows can't be shared out at it; choose a higher one")
    return budgets


def _clipped_shares(amount: int, sizes: Counts, least: Counts, temperature: float) -> NDArray[np.float64]:
    """Shares of `amount` in proportion to size ** (1 / temperature), but at least `least` and at most the size.

    Their sum rises with the level that these weights are multiplied by, so halving finds where it is the amount. That
    decides which strata get all of their rows and which the least; the others share the rest. Level and weights are
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
