"""What a score correlates with, and what a selection by it does to the mix of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.selecting.candidates import Candidates, Positions, to_values
from delta_attnmask.selecting.quotas import chance_distortion, distortion
from delta_attnmask.selecting.strata import Strata, strata_of
from delta_attnmask.statistics import Values, rounded, spearman

TRAITS = {
    "answer length": "n_answer_tokens",
    "image tokens": "n_image_tokens",
    "images": "n_images",
    "turns": "n_turns",
    "loss": "loss",
}
MIXES = (("source",), ("answer_type",), ("source", "answer_type"), ("question",))
_N_NAMED = 8


def trait_correlations(values: Values, table: pa.Table) -> dict[str, float | None]:
    """Spearman's correlation of the values with each trait of the same rows; None where the trait never changes."""
    return {name: rounded(spearman(values, to_values(table, column))) for name, column in TRAITS.items()}


def describe_sources(candidates: Candidates, sources: Strata) -> list[dict[str, Any]]:
    """Rows, mean and standard deviation of the values in each source, the highest mean first."""
    values, codes, sizes = candidates.values, sources.codes, sources.sizes
    means = np.bincount(codes, values, sources.n) / sizes
    spreads = np.sqrt(np.bincount(codes, (values - means[codes]) ** 2, sources.n) / sizes)
    names = candidates.table["source"].take(sources.firsts).to_pylist()
    return [
        {
            "name": names[idx],
            "n_rows": int(sizes[idx]),
            "mean": float(f"{means[idx]:.4g}"),
            "sd": float(f"{spreads[idx]:.4g}"),
        }
        for idx in np.argsort(-means, kind="stable")
    ]


def mix_changes(table: pa.Table, kept: Positions) -> dict[str, dict[str, Any]]:
    """How the mix of sources, answer types and questions changes from all rows of the table to the kept."""
    return {" and ".join(columns): _mix_change(table, columns, kept) for columns in MIXES}


def _mix_change(table: pa.Table, columns: Sequence[str], kept: Positions) -> dict[str, Any]:
    """Distortion of the mix, what chance would give, and the strata whose share changes most, largest first."""
    strata = strata_of(table, columns)
    before = strata.sizes / len(strata.codes)
    after = np.bincount(strata.codes[kept], minlength=strata.n) / len(kept)
    largest = np.argsort(-np.abs(after - before), kind="stable")[:_N_NAMED]
    rows = table.select(columns).take(strata.firsts[largest]).to_pylist()  # the first row of each names it
    names = [" / ".join(str(row[column]) or "(none)" for column in columns) for row in rows]
    return {
        "n_strata": strata.n,
        "n_strata_lost": int(np.count_nonzero(after == 0)),
        "distortion": round(distortion(strata, kept), 4),
        "distortion_by_chance": round(chance_distortion(strata, len(kept)), 4),
        "largest": [
            {"name": name, "before": round(float(before[idx]), 4), "after": round(float(after[idx]), 4)}
            for name, idx in zip(names, largest, strict=True)
        ],
    }
