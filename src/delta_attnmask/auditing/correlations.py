"""What a score goes along with: rank correlations with traits of the rows, and its level in each source."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.selecting.rules import Values
from delta_attnmask.selecting.strata import Strata
from delta_attnmask.statistics import rounded, spearman

TRAITS = {
    "answer length": "n_answer_tokens",
    "image tokens": "n_image_tokens",
    "images": "n_images",
    "turns": "n_turns",
    "loss": "loss",
}


def trait_correlations(values: Values, table: pa.Table) -> dict[str, float | None]:
    """Spearman's correlation of the values with each trait of the same rows; None where the trait never changes."""
    return {name: rounded(spearman(values, to_values(table, column))) for name, column in TRAITS.items()}


def to_values(table: pa.Table, column: str) -> Values:
    """A stored column as float64, NaN where it is empty."""
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


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
