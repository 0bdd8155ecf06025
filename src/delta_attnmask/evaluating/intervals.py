"""Bootstrap intervals over rows, and an exact sign test. Numpy only.

Rows are drawn, not answers, since the answers of one conversation rise and fall together. Only sums over the drawn rows
are read, so rows with the same numbers are drawn together: one multinomial draw over the distinct ones is the same as
drawing row by row, and costs nothing for thousands of rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 2000
_DRAWS_PER_CHUNK = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval (percentile bootstrap)."""

    value: float
    low: float
    high: float


def resampled_sums(rows: Values, seed: Sequence[int], n_resamples: int = RESAMPLES) -> Values:
    """Column sums over rows drawn with replacement. rows: `[row, column]`; result `[resample, column]`."""
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
    """The mean over groups of each group's share; rows are drawn within each group."""
    value = float(np.mean([hits.sum() / n.sum() for hits, n in groups]))
    drawn = [resampled_sums(np.stack(group, axis=1), (seed, index)) for index, group in enumerate(groups)]
    low, high = np.quantile(np.mean([sums[:, 0] / sums[:, 1] for sums in drawn], axis=0), [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def sign_test(n_better: int, n_worse: int) -> float:
    """Two-sided p of as uneven a split if either were as likely (exact; of single answers, McNemar's test).

    Ties are left out before; without any difference p is 1.
    """
    n, fewer = n_better + n_worse, min(n_better, n_worse)
    if n == 0:
        return 1.0
    log_terms = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(term - n * math.log(2)) for term in log_terms))
