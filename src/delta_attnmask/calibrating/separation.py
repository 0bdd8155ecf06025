"""How well a score ranks originals above their planted copies: AUROC with bootstrap intervals. Numpy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_RESAMPLES = 400
_CHUNK = 64  # resamples weighed at a time


@dataclass(frozen=True)
class Separation:
    """AUROC: the chance that an original scores above a copy, ties half; 0.5 tells nothing. low, high: 95 % interval.

    paired: the chance that an original scores above its own copy. n_pairs: how many pairs that is from.
    """

    auroc: float
    low: float
    high: float
    paired: float
    n_pairs: int


def separate(
    originals: Values, copies: Values, seed: int = 0, *, groups: NDArray[np.int64] | None = None
) -> Separation:
    """Compare the scores of originals with those of their copies (same order, same length).

    Intervals resample pairs, not rows, since an original and its copy rise and fall together.
    groups: a number for each pair; those of one number are resampled together, such as the pairs of one original.
    Pairs with a value that is no number are left out; without any pair everything is NaN.
    """
    is_known = ~(np.isnan(originals) | np.isnan(copies))
    groups = np.arange(len(originals)) if groups is None else groups
    originals, copies, groups = originals[is_known], copies[is_known], groups[is_known]
    n = originals.size
    if n == 0:
        return Separation(np.nan, np.nan, np.nan, np.nan, 0)
    wins = _wins(originals[:, None], copies[None, :])
    resampled = _resampled_means(wins, groups, seed)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Separation(float(wins.mean()), float(low), float(high), float(_wins(originals, copies).mean()), n)


def auroc(originals: Values, copies: Values) -> float:
    """The chance that an original scores above a copy, ties half; NaN without values."""
    originals, copies = originals[~np.isnan(originals)], copies[~np.isnan(copies)]
    if not originals.size or not copies.size:
        return float("nan")
    ordered = np.sort(copies)
    below = np.searchsorted(ordered, originals, side="left")
    not_above = np.searchsorted(ordered, originals, side="right")
    return float((below + not_above).mean() / 2 / copies.size)


def _wins(first: Values, second: Values) -> Values:
    wins: Values = (first > second) + 0.5 * (first == second)
    return wins


def _resampled_means(wins: Values, groups: NDArray[np.int64], seed: int) -> Values:
    """The mean win over resampled groups of pairs: counts @ wins @ counts, some resamples at a time."""
    numbers, group = np.unique(groups, return_inverse=True)
    n = len(numbers)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
    parts = [counts[start : start + _CHUNK, group] for start in range(0, _RESAMPLES, _CHUNK)]
    return np.concatenate([((part @ wins) * part).sum(1) / part.sum(1) ** 2 for part in parts])
