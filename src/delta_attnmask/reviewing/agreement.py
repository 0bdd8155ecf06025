"""Krippendorff's alpha: how far raters agree beyond chance, whoever rated what.

As defined in K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: any number of raters, values
missing.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["nominal", "ordinal"]


def krippendorff_alpha(units: Sequence[Sequence[int]], n_values: int, metric: Metric) -> float | None:
    """Alpha of the values that raters gave to units: 1 perfect agreement, 0 chance, below 0 systematic disagreement.

    units: for each unit the values it was given, 0 to n_values - 1, one a rater; those with fewer than two are left
    out. None where nothing can be said: no unit has two values, or all values are the same.
    """
    coincidences = count_coincidences(units, n_values)
    totals = coincidences.sum(axis=1)
    distances = _distances(totals, metric)
    expected = float((np.outer(totals, totals) * distances).sum())
    if expected == 0:
        return None
    return 1 - float((coincidences * distances).sum()) * float(totals.sum() - 1) / expected


def count_coincidences(units: Sequence[Sequence[int]], n_values: int) -> NDArray[np.float64]:
    """How often two raters gave a unit the values c and k; each unit counts as many times as it has values. [c, k]"""
    found = np.zeros((n_values, n_values))
    for values in units:
        for one, other in permutations(values, 2):
            found[one, other] += 1 / (len(values) - 1)
    return found


def _distances(totals: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """The squared difference of each two values: 0 or 1, or by how many values lie between them in rank."""
    if metric == "nominal":
        return 1 - np.eye(len(totals))
    ranks = np.cumsum(totals) - totals / 2
    distances: NDArray[np.float64] = (ranks[:, None] - ranks[None, :]) ** 2
    return distances
