"""Keep the rows of the highest value within each stratum, so that the mix of the data stays as it was.

The plain top of any score skews the mix of questions and answers, and a model trained on it forgets what was left out.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.band import band_set, require_share
from delta_attnmask.selecting.rules import Candidates, Choice, Positions, Rule, Values, one_reason
from delta_attnmask.selecting.shares import Counts, share_out
from delta_attnmask.selecting.strata import Codes, Strata, candidate_strata
from delta_attnmask.selecting.top import best_first

_SMALL = 128  # rows; smaller strata are cheaper to sort together than to take one by one


def quota(
    columns: Sequence[str] = ("source",), temperature: float = 1.0, min_per_stratum: int = 0, skip_top: float = 0.0
) -> Rule:
    """A rule that shares the budget out over the values of `columns` (jointly).

    temperature: 1 keeps each stratum's share of the rows, larger evens the shares out (share ** (1 / temperature)),
        as in the sampling of languages or tasks.
    min_per_stratum: rows that every stratum keeps, or all that it has.
    skip_top: share of each stratum that is left out at its top.
    """
    if not columns:
        raise SettingsError("quota: expected at least one column, such as source")
    if temperature <= 0:
        raise SettingsError(f"temperature={temperature}: expected a number above 0")
    if min_per_stratum < 0:
        raise SettingsError(f"min_per_stratum={min_per_stratum}: expected a number of rows, such as 10")
    require_share(skip_top)

    return partial(
        keep_within_strata,
        columns=tuple(columns),
        temperature=temperature,
        min_per_stratum=min_per_stratum,
        skip_top=skip_top,
    )


def keep_within_strata(
    candidates: Candidates,
    n_keep: int,
    *,
    columns: Sequence[str] = ("source",),
    temperature: float = 1.0,
    min_per_stratum: int = 0,
    skip_top: float = 0.0,
) -> Choice:
    """Each stratum's share of `n_keep`, filled from the top of the stratum; best first over all strata."""
    strata = candidate_strata(candidates, columns)
    budgets = share_out(n_keep, strata.sizes, temperature, min_per_stratum)
    kept = best_first(candidates.values, quota_set(candidates.values, strata, budgets, skip_top))
    return one_reason(
        kept,
        f"among the highest of its {' and '.join(columns)}, within its share of the budget",
        n_strata=strata.n,
        n_strata_left_out=int(np.count_nonzero(budgets == 0)),
    )


def quota_set(values: Values, strata: Strata, budgets: Counts, skip_top: float = 0.0) -> Positions:
    """The positions of the highest values of each stratum, `budgets` of them, in ascending order.

    Ties go to the lower position. Linear in the rows of large strata, which go one by one.
    """
    sizes = strata.sizes
    skips = np.minimum((skip_top * sizes).astype(np.int64), sizes - budgets)
    order = _by_code(strata)
    starts = np.cumsum(sizes) - sizes
    is_large = sizes > _SMALL
    is_kept = np.zeros(len(values), dtype=bool)
    for start, size, budget, skip in zip(
        *(part[is_large].tolist() for part in (starts, sizes, budgets, skips)), strict=True
    ):
        members = order[start : start + size]
        is_kept[members[band_set(values[members], budget, skip)]] = True
    members = order[np.repeat(~is_large, sizes)]
    is_kept[_take_small(values, strata.codes, members, budgets, skips)] = True
    return np.flatnonzero(is_kept)


def _by_code(strata: Strata) -> Positions:
    """The positions, the rows of a stratum side by side: a radix sort of 16 bits at a time, in linear time."""
    order: Positions = np.argsort(strata.codes.astype(np.uint16), kind="stable")
    if strata.n > 1 << 16:
        order = order[np.argsort((strata.codes[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _take_small(values: Values, codes: Codes, members: Positions, budgets: Counts, skips: Counts) -> Positions:
    """Of `members`, which stand by stratum, those whose rank in their stratum is within its budget."""
    by_value = members[np.lexsort((-values[members], codes[members]))]
    stratum = codes[by_value]
    is_first = np.ones(len(by_value), dtype=bool)
    is_first[1:] = stratum[1:] != stratum[:-1]
    rank = np.arange(len(by_value)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    taken: Positions = by_value[(rank >= skips[stratum]) & (rank < skips[stratum] + budgets[stratum])]
    return taken
