"""Every statistic of the project: ranks, separation, resampled intervals, tests, agreement. No torch.

SciPy is imported where it is used, since it takes longer to load than most commands take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 2000
_PAIR_RESAMPLES = 400  # of separations: each costs a product with the matrix of all wins
_PAIR_CHUNK = 64  # resamples weighed at a time
_DRAWS_PER_CHUNK = 1 << 22
_INTERVAL = (0.025, 0.975)
_MAX_RANKED = 500_000  # rows; the error of a rank correlation of that many is below 0.002


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval (percentile bootstrap)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Separation:
    """How well a score ranks originals above their copies.

    auroc: the chance that an original scores above a copy, ties half; 0.5 is chance. low, high: its 95 % interval.
    paired: the chance that an original scores above its own copy. n_pairs: how many pairs that is from.
    """

    auroc: float
    low: float
    high: float
    paired: float
    n_pairs: int


def midranks(values: Values) -> Values:
    """Ranks from 1, equal values at the mean of their ranks; NaN where there is no number."""
    from scipy.stats import rankdata

    ranks: Values = rankdata(values, nan_policy="omit")
    return ranks


def spearman(first: Values, second: Values) -> float:
    """The rank correlation of two columns, ties at their mean rank; NaN if one of them never changes.

    Rows in which either isn't finite are left out. Measured on 500,000 evenly spaced rows where there are more.
    """
    spaced = slice(None, None, -(-len(first) // _MAX_RANKED) or 1)
    first, second = first[spaced], second[spaced]
    is_known = np.isfinite(first) & np.isfinite(second)
    x, y = midranks(first[is_known]), midranks(second[is_known])
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def share_between(values: Values, groups: NDArray[np.integer]) -> float:
    """The share of the variance of the ranks between groups: 0 none, 1 all (eta squared); NaN for constants.

    groups: the group of each value, from 0, without gaps.
    """
    ranks, sizes = midranks(values), np.bincount(groups)
    if not ranks.size or not ranks.var():
        return float("nan")
    means = np.bincount(groups, ranks) / sizes
    return float(np.average((means - ranks.mean()) ** 2, weights=sizes) / ranks.var())


def rounded(number: float) -> float | None:
    """As reports hold it: four digits, None for NaN."""
    return None if np.isnan(number) else round(number, 4)


def total_variation(shares: Values, others: Values) -> float:
    """The total variation distance of two distributions: 0 for the same, 1 for disjoint ones."""
    return float(np.abs(shares - others).sum() / 2)


def copies_kept(originals: Values, copies: Values, keep: float = 0.2) -> float:
    """The share of copies among the highest `keep` of both together, divided by their share of both: 0 none, 1 chance.

    Of rows that tie at the cut, each counts by the chance that it is kept. NaN without values.
    """
    originals, copies = originals[~np.isnan(originals)], copies[~np.isnan(copies)]
    both = np.concatenate([originals, copies])
    if not originals.size or not copies.size:
        return float("nan")
    n_kept = max(1, round(keep * both.size))
    cut = np.partition(both, -n_kept)[-n_kept]
    n_above, n_tied = np.count_nonzero(both > cut), np.count_nonzero(both == cut)
    n_copies = np.count_nonzero(copies > cut) + (n_kept - n_above) * np.count_nonzero(copies == cut) / n_tied
    return float(n_copies / n_kept * both.size / copies.size)


def auroc(positives: Values, negatives: Values) -> float:
    """The chance that a positive scores above a negative, ties half; NaN without values."""
    positives, negatives = positives[~np.isnan(positives)], negatives[~np.isnan(negatives)]
    n, m = positives.size, negatives.size
    if not n or not m:
        return float("nan")
    return float((midranks(np.concatenate([positives, negatives]))[:n].sum() - n * (n + 1) / 2) / (n * m))


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
    if not originals.size:
        return Separation(np.nan, np.nan, np.nan, np.nan, 0)
    wins = _wins(originals[:, None], copies[None, :])
    low, high = np.quantile(_resampled_wins(wins, groups, seed), _INTERVAL)
    paired = _wins(originals, copies).mean()
    return Separation(float(wins.mean()), float(low), float(high), float(paired), originals.size)


def _wins(first: Values, second: Values) -> Values:
    wins: Values = (first > second) + 0.5 * (first == second)
    return wins


def _resampled_wins(wins: Values, groups: NDArray[np.int64], seed: int) -> Values:
    """The mean win over resampled groups of pairs: counts @ wins @ counts, some resamples at a time."""
    numbers, group = np.unique(groups, return_inverse=True)
    n = len(numbers)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_PAIR_RESAMPLES).astype(np.float64)
    parts = [counts[start : start + _PAIR_CHUNK, group] for start in range(0, _PAIR_RESAMPLES, _PAIR_CHUNK)]
    return np.concatenate([((part @ wins) * part).sum(1) / part.sum(1) ** 2 for part in parts])


def resampled_sums(rows: Values, seed: Sequence[int], n_resamples: int = RESAMPLES) -> Values:
    """Column sums over rows drawn with replacement. rows: `[row, column]`; result `[resample, column]`.

    Rows with the same numbers are drawn together: one multinomial draw over the distinct ones equals drawing row by
    row, and costs nothing for thousands of rows.
    """
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(list(seed))
    size = max(1, _DRAWS_PER_CHUNK // len(counts))
    shares = counts / counts.sum()
    parts = [
        rng.multinomial(len(rows), shares, size=min(size, n_resamples - start)) @ distinct
        for start in range(0, n_resamples, size)
    ]
    return np.concatenate(parts)


def mean_of_shares(groups: Sequence[tuple[Values, Values]], seed: int = 0) -> Estimate:
    """The mean over groups of each group's share of hits; rows are drawn within each group.

    groups: for each, the hits and the answers of its rows. Rows are drawn, not answers, since the answers of one
    conversation rise and fall together.
    """
    value = float(np.mean([hits.sum() / n.sum() for hits, n in groups]))
    drawn = [resampled_sums(np.stack(group, axis=1), (seed, index)) for index, group in enumerate(groups)]
    low, high = np.quantile(np.mean([sums[:, 0] / sums[:, 1] for sums in drawn], axis=0), _INTERVAL)
    return Estimate(value, float(low), float(high))


def mean_of_columns(rows: Values) -> list[Estimate]:
    """The mean of each column of `[row, column]`, with its interval over rows."""
    low, high = np.quantile(resampled_sums(rows, (0,)) / len(rows), _INTERVAL, axis=0)
    return [Estimate(*map(float, column)) for column in zip(rows.mean(0), low, high, strict=True)]


def sign_test(n_better: int, n_worse: int) -> float:
    """Two-sided p of as uneven a split if either were as likely (exact; of single answers, McNemar's test).

    Ties are left out beforehand; without any difference p is 1.
    """
    from scipy.stats import binomtest

    n = n_better + n_worse
    return float(binomtest(n_better, n).pvalue) if n else 1.0


def wilson_interval(n_wins: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (JASA 22, 1927), without continuity correction, of n_wins in n; (0, 1) where n is 0.

    n_wins may be fractional, which SciPy's doesn't allow: with a tie counted as half a win, the variance of an outcome
    is at most that of a yes or no of the same mean, so the interval is rather too wide than too narrow.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_wins / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def krippendorff_alpha(units: Sequence[Sequence[int]], n_values: int) -> float | None:
    """How far raters agree on names: 1 perfectly, 0 as chance would, below 0 systematic disagreement.

    Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: any number of raters, values missing.
    units: for each unit the values it was given, 0 to n_values - 1, one a rater; those with fewer than two are left
    out. None where nothing can be said: no unit has two values, or all values are the same.
    """
    pairs = np.zeros((n_values, n_values))  # [c, k]: how often two raters gave c and k, weighed to one per value
    for values in units:
        for one, other in permutations(values, 2):
            pairs[one, other] += 1 / (len(values) - 1)
    totals = pairs.sum(axis=1)
    distances = 1 - np.eye(n_values)
    expected = float((np.outer(totals, totals) * distances).sum())
    return 1 - float((pairs * distances).sum()) * float(totals.sum() - 1) / expected if expected else None
