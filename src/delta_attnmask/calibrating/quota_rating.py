"""How many planted copies each quota lets through, on the calibration's sample. Numpy only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import DataError
from delta_attnmask.selecting.quotas import MIX_COLUMNS, QUOTAS, RULE, chance_distortion, distortion, joint, kept_set
from delta_attnmask.selecting.quotas import choose_quota as choose_by_rule
from delta_attnmask.selecting.strata import Strata, strata_of_values

_PLANTED_SHARE = 0.4
_N_POOLS = 100


def choose_quota(
    values: NDArray[np.float64],
    original: Sequence[int],
    is_planted: Sequence[bool] | NDArray[np.bool_],
    columns: Mapping[str, Sequence[str]],
    *,
    keep: float = 0.2,
    seed: int = 0,
) -> dict[str, Any]:
    """Rate every quota of `selecting.quotas.QUOTAS` on pools made of originals and planted copies.

    values: the chosen score of each record, higher is kept; NaN where it has none. [n_records]
    original: for each record the number of its original. is_planted: whether it is a copy. [n_records]
    columns: "source", "question" and "answer_type" of each record as it was scored (of a copy, those of the copy).
    keep: share that is kept.

    A pool has one record for each original: itself, or in two of five cases one of its copies; 100 pools are averaged.
    Returns plain JSON values for the report under "quota": keep, planted_share, options (quota ->
    planted_ratio: share of planted copies among the kept ÷ share in the pool; excess_distortion), chosen (on the
    sample alone; `select` weighs planted_ratio against the distortion of the whole run's rows) and rule.
    """
    encoded = {name: strata_of_values(column) for name, column in columns.items()}
    planted = np.asarray(is_planted)
    found: dict[str, list[tuple[float, float]]] = {quota: [] for quota in QUOTAS}
    shares = []
    for pool in _draw_pools(np.asarray(original), planted, np.isfinite(values), seed):
        shares.append(planted[pool].mean())
        strata = {name: column.take(pool) for name, column in encoded.items()}
        for quota, ratings in found.items():
            ratings.append(_rate(values[pool], planted[pool], strata, quota, keep))
    if not shares:
        raise DataError("no planted copy has a score, so the quotas can't be compared")
    means = {quota: np.mean(ratings, axis=0).clip(min=0).tolist() for quota, ratings in found.items()}
    ratio, excess = ({quota: round(pair[part], 4) for quota, pair in means.items()} for part in (0, 1))
    return {
        "keep": keep,
        "planted_share": round(float(np.mean(shares)), 4),
        "options": {q: {"planted_ratio": ratio[q], "excess_distortion": excess[q]} for q in QUOTAS},
        "chosen": choose_by_rule(ratio, excess),
        "rule": RULE,
    }


def _draw_pools(
    original: NDArray[np.int64], is_planted: NDArray[np.bool_], is_scored: NDArray[np.bool_], seed: int
) -> Iterator[NDArray[np.intp]]:
    """Pools of one record for each original that has a score; pools that got no copy are left out."""
    rng = np.random.default_rng(seed)
    originals, usable = np.flatnonzero(~is_planted & is_scored), np.flatnonzero(is_planted & is_scored)
    copies = {int(number): usable[original[usable] == number] for number in np.unique(original[usable])}
    for _ in range(_N_POOLS):
        pool = originals.copy()
        for idx in np.flatnonzero(rng.random(len(pool)) < _PLANTED_SHARE):
            if (own := copies.get(int(original[pool[idx]]))) is not None:
                pool[idx] = rng.choice(own)
        if is_planted[pool].any():
            yield pool


def _rate(
    values: NDArray[np.float64], is_planted: NDArray[np.bool_], strata: Mapping[str, Strata], quota: str, keep: float
) -> tuple[float, float]:
    """Planted copies kept relative to chance, and the distortion less what chance would give, also below 0."""
    kept = kept_set(values, strata, quota, max(1, round(keep * len(values))))
    ratio = float(is_planted[kept].mean() / is_planted.mean())
    mix = joint(strata, MIX_COLUMNS)
    return ratio, distortion(mix, kept) - chance_distortion(mix, len(kept))
