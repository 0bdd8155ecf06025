"""Which quota suits a selection: the planted copies that it lets through against what it does to the mix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delta_attnmask.selecting.budgets import best_first, fill_budgets, share_out
from delta_attnmask.selecting.candidates import Candidates, Positions
from delta_attnmask.selecting.strata import Strata, strata_of
from delta_attnmask.statistics import Values, total_variation

RULE = """\
The rule. For each quota on offer, from coarse to fine (none; source; question; source and answer type; question and
answer type; those with questions only where questions repeat: at least half of the rows share theirs with 20 others):

1. The share of planted copies that it keeps, divided by their share of the pool, from calibration: 0 is perfect, 1 is
   chance. The pool is the calibration's sample with two of five rows replaced by a planted copy.
2. The distortion that it causes where a fifth is kept, so that every budget gets the same quota: the total variation
   distance between the kept rows and all rows over source and answer type, less what chance alone would give.
3. The lowest sum wins; among those within 0.02 of it, the coarsest.

Without a calibration of the column that is ranked by: source and answer type, the finest that needs no repeated
questions, since nothing vouches for the score."""

# Name -> columns, from coarse to fine.
QUOTAS: dict[str, tuple[str, ...]] = {
    "none": (),
    "source": ("source",),
    "question": ("question",),
    "source,answer_type": ("source", "answer_type"),
    "question,answer_type": ("question", "answer_type"),
}
MIX_COLUMNS = ("source", "answer_type")

_MIN_OTHERS = 20
_TIED_WITHIN = 0.02
_SHARE = 0.2  # of the candidates that distortions are measured at, whatever is kept
_MAX_SAMPLE = 200_000  # candidates that the distortions are measured on


def distortion(mix: Strata, kept: Positions) -> float:
    """Total variation distance between the mix of the kept rows and that of all: 0 is the same mix, 1 another."""
    return total_variation(np.bincount(mix.codes[kept], minlength=mix.n) / len(kept), mix.sizes / len(mix.codes))


def chance_distortion(mix: Strata, n_keep: int) -> float:
    """The distortion to be expected of `n_keep` rows drawn at random, by the normal approximation."""
    n_rows = len(mix.codes)
    shares = mix.sizes / n_rows
    variance = shares * (1 - shares) / n_keep * (n_rows - n_keep) / max(1, n_rows - 1)
    return float(np.sqrt(2 / np.pi * variance).sum() / 2)


def questions_repeat(questions: Strata) -> bool:
    """Whether at least half of the rows share their question with 20 others."""
    sizes = questions.sizes
    return bool(2 * sizes[sizes > _MIN_OTHERS].sum() >= sizes.sum() > 0)


def kept_set(values: Values, columns: Mapping[str, Strata], quota: str, n_keep: int) -> Positions:
    """What a quota of `QUOTAS` keeps, best first."""
    if not QUOTAS[quota]:
        return best_first(values, n_keep)
    strata = joint(columns, QUOTAS[quota])
    return fill_budgets(values, strata, share_out(n_keep, strata.sizes))


def joint(columns: Mapping[str, Strata], names: Sequence[str]) -> Strata:
    """The strata of some columns together."""
    found = columns[names[0]]
    for name in names[1:]:
        found = found & columns[name]
    return found


def choose_quota(planted_ratio: Mapping[str, float], excess: Mapping[str, float]) -> str:
    """The quota of the lowest sum, coarsest among the tied ones; both give a number for each quota on offer."""
    sums = {quota: planted_ratio[quota] + excess[quota] for quota in QUOTAS if quota in excess}
    return next(quota for quota, total in sums.items() if total <= min(sums.values()) + _TIED_WITHIN)


def choose_columns(
    candidates: Candidates, planted_ratio: Mapping[str, float], *, needs_quota: bool = False
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which columns to keep in balance by `RULE`, () for none; and how that was chosen, as plain JSON values.

    planted_ratio: {} if the ranking column wasn't calibrated.
    needs_quota: never choose none. Columns that the table lacks are never chosen.
    """
    mix = [name for name in MIX_COLUMNS if name in candidates.table.column_names]
    if not planted_ratio or len(mix) < len(MIX_COLUMNS):
        return tuple(mix), {"chosen": ",".join(mix) or "none", "is_calibrated": False, "rule": RULE}
    excess = _excess(candidates)
    offered = {quota: excess[quota] for quota in excess if quota in planted_ratio}
    if needs_quota:
        offered.pop("none", None)
    chosen = choose_quota(planted_ratio, offered)
    options = {
        quota: {"planted_ratio": planted_ratio[quota], "excess_distortion": round(value, 4)}
        for quota, value in offered.items()
    }
    return QUOTAS[chosen], {"chosen": chosen, "is_calibrated": True, "options": options, "rule": RULE}


def _excess(candidates: Candidates) -> dict[str, float]:
    """The distortion beyond chance by each quota on offer, on evenly spaced candidates where there are many."""
    spaced = np.arange(0, len(candidates), -(-len(candidates) // _MAX_SAMPLE))
    names = [name for name in (*MIX_COLUMNS, "question") if name in candidates.table.column_names]
    columns = {name: strata_of(candidates.table, (name,)).take(spaced) for name in names}
    if "question" in columns and not questions_repeat(columns["question"]):
        del columns["question"]
    values, n_keep = candidates.values[spaced], min(len(spaced), max(1, round(_SHARE * len(spaced))))
    mix, offered = joint(columns, MIX_COLUMNS), [quota for quota in QUOTAS if set(QUOTAS[quota]) <= columns.keys()]
    kept = {quota: kept_set(values, columns, quota, n_keep) for quota in offered}
    return {q: max(0.0, distortion(mix, rows) - chance_distortion(mix, len(rows))) for q, rows in kept.items()}
