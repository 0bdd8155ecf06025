"""Keep the rows of the highest value within each stratum, so that the mix of the data stays as it was.

The plain top of any score skews the mix of questions and answers, and a model trained on it forgets what was left out.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.rules import Candidates, Choice, Rule
from delta_attnmask.selecting.top import top_positions

Codes = NDArray[np.int64]


def quota(columns: Sequence[str], temperature: float = 1.0) -> Rule:
    """A rule that shares the budget out over the values of `columns` (jointly).

    temperature: 1 keeps each stratum's share of the rows, larger evens the shares out (share ** (1 / temperature)),
        as in the sampling of languages or tasks.
    """
    if not columns:
        raise SettingsError("quota: expected at least one column, such as source")
    if temperature <= 0:
        raise SettingsError(f"temperature={temperature}: expected a number above 0")
    return partial(keep_within_strata, columns=tuple(columns), temperature=temperature)


def keep_within_strata(
    candidates: Candidates, n_keep: int, *, columns: tuple[str, ...] = ("source",), temperature: float = 1.0
) -> Choice:
    """Each stratum's share of `n_keep` by largest remainder, filled from the top of the stratum.

    Returned best first over all strata. What a stratum can't fill goes to the others.
    """
    codes, names = strata(candidates.table, columns)
    sizes = np.bincount(codes, minlength=len(names))
    budgets = share_out(n_keep, sizes, temperature)
    # Small integers are sorted by radix, in linear time: the rows of a stratum side by side.
    order = np.argsort(codes.astype(np.int16 if len(names) < 2**15 else np.int64), kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    kept = [
        members[top_positions(candidates.values[members], budget)]
        for members, budget in zip(np.split(order, starts[1:-1]), budgets, strict=True)
        if budget
    ]
    positions = np.concatenate(kept)
    positions = positions[np.argsort(-candidates.values[positions], kind="stable")]
    details = {"quota_by": list(columns), "temperature": temperature, "n_strata": len(names)}
    reason = f"among the highest of its {' and '.join(columns)}, within its share of the budget"
    return Choice(positions, (reason,), np.zeros(len(positions), dtype=np.int32), details)


def strata(table: pa.Table, columns: Sequence[str]) -> tuple[Codes, list[str]]:
    """For each row the number of its stratum, and the strata's names; `[n_candidates]`."""
    codes, names = np.zeros(len(table), dtype=np.int64), [""]
    for column in columns:
        if column not in table.column_names:
            raise SettingsError(f"quota by {column!r}: no such column; there are {', '.join(table.column_names)}")
        encoded = pc.dictionary_encode(table[column].combine_chunks().fill_null(""))
        part = encoded.indices.to_numpy().astype(np.int64)
        values = [str(value) for value in encoded.dictionary.to_pylist()]
        used, codes = np.unique(codes * len(values) + part, return_inverse=True)
        names = [f"{names[i // len(values)]}/{values[i % len(values)]}".lstrip("/") for i in used]
    return codes, names


def share_out(n_keep: int, sizes: Codes, temperature: float = 1.0) -> Codes:
    """Whole numbers that add up to `n_keep` (at most what there is), none above its size; largest remainders first."""
    wanted = _proportional(float(min(n_keep, sizes.sum())), sizes, temperature)
    budgets = np.floor(wanted + 1e-9).astype(np.int64)
    n_missing = int(min(n_keep, sizes.sum()) - budgets.sum())
    remainder = np.where(budgets < sizes, wanted - budgets, -1.0)
    budgets[np.lexsort((np.arange(len(sizes)), -sizes, -remainder))[:n_missing]] += 1
    return budgets


def _proportional(amount: float, sizes: Codes, temperature: float) -> NDArray[np.float64]:
    """Shares of `amount` by size ** (1 / temperature); what is above a stratum's size goes to the others."""
    weights = (sizes / sizes.sum()) ** (1 / temperature)
    wanted = np.zeros(len(sizes))
    is_open = sizes > 0
    while is_open.any():
        share = np.where(is_open, weights, 0.0) / weights[is_open].sum() * (amount - wanted[~is_open].sum())
        wanted[is_open] = share[is_open]
        is_over = is_open & (wanted > sizes)
        if not is_over.any():
            break
        wanted[is_over] = sizes[is_over]
        is_open &= ~is_over
    return wanted
