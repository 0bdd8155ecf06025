"""What a score goes along with: rank correlations with traits of the rows, and its level in each source."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.selecting.rules import Values
from delta_attnmask.selecting.strata import Strata

TRAITS = {
    "answer length": "n_answer_tokens",
    "image tokens": "n_image_tokens",
    "images": "n_images",
    "turns": "n_turns",
    "loss": "loss",
}
_MAX_SAMPLE = 500_000  # rows; the error of a correlation of that many is below 0.002


def trait_correlations(values: Values, table: pa.Table) -> dict[str, float | None]:
    """Spearman's correlation of the values with each trait of the same rows; None where the trait never changes."""
    return {name: spearman(values, to_values(table, column)) for name, column in TRAITS.items()}


def to_values(table: pa.Table, column: str) -> Values:
    """A stored column as float64, NaN where it is empty."""
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def spearman(first: Values, second: Values) -> float | None:
    """The rank correlation of two columns, ties at their mean rank; None if one of them never changes.

    Rows where one isn't finite are left out. Measured on 500,000 evenly spaced rows where there are more.
    """
    spaced = slice(None, None, -(-len(first) // _MAX_SAMPLE) or 1)
    first, second = first[spaced], second[spaced]
    is_known = np.isfinite(first) & np.isfinite(second)
    x, y = mean_ranks(first[is_known]), mean_ranks(second[is_known])
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return round(float(np.corrcoef(x, y)[0, 1]), 4)


def mean_ranks(values: Values) -> Values:
    """Ranks from 0, equal values at the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts + 1) / 2)[which]
    return ranks


def between_share(values: Values, strata: Strata) -> float | None:
    """Which share of the variance of the ranks lies between strata: 0 none, 1 all (eta squared)."""
    ranks = mean_ranks(values)
    if not ranks.var():
        return None
    means = np.bincount(strata.codes, ranks, strata.n) / strata.sizes
    return round(float(np.average((means - ranks.mean()) ** 2, weights=strata.sizes) / ranks.var()), 4)


def by_stratum(values: Values, strata: Strata, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows, mean and standard deviation of the values in each stratum, the highest mean first."""
    means = np.bincount(strata.codes, values, strata.n) / strata.sizes
    spreads = np.sqrt(np.bincount(strata.codes, (values - means[strata.codes]) ** 2, strata.n) / strata.sizes)
    return [
        {
            "name": names[idx],
            "n_rows": int(strata.sizes[idx]),
            "mean": float(f"{means[idx]:.4g}"),
            "sd": float(f"{spreads[idx]:.4g}"),
        }
        for idx in np.argsort(-means, kind="stable")
    ]
