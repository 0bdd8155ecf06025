"""What a selection does to the mix of the data, and which quota holds it at the lowest price, without labels.

The rule. For each quota on offer, from coarse to fine (none; source; question; source and answer type; question and
answer type; those with questions only where questions repeat: at least half of the rows share theirs with 20 others):

1. The share of planted copies that it keeps, divided by their share of the pool, from calibration: 0 is perfect, 1 is
   chance. The pool is the calibration's sample with two of five rows replaced by a planted copy.
2. The distortion that it causes: the total variation distance between the kept rows and all rows over source and
   answer type, less what chance alone would give.
3. The lowest sum wins; among those within 0.02 of it, the coarsest.

Without a calibration of the column that is ranked by: source and answer type, the finest that needs no repeated
questions, since nothing vouches for the score.
"""

from collections.abc import Mapping

import numpy as np

from delta_attnmask.selecting.quota import quota_set
from delta_attnmask.selecting.rules import Positions, Values
from delta_attnmask.selecting.shares import share_out
from delta_attnmask.selecting.strata import Strata
from delta_attnmask.selecting.top import top_set
from delta_attnmask.statistics import total_variation

RULE = (__doc__ or "").partition("\n\n")[2].strip()

# Name -> columns, from coarse to fine.
QUOTAS: dict[str, tuple[str, ...]] = {
    "none": (),
    "source": ("source",),
    "question": ("question",),
    "source,answer_type": ("source", "answer_type"),
    "question,answer_type": ("question", "answer_type"),
}
UNCALIBRATED = "source,answer_type"
MIX_COLUMNS = ("source", "answer_type")

_MIN_OTHERS = 20
_TIED_WITHIN = 0.02


def distortion(mix: Strata, kept: Positions) -> float:
    """Total variation distance between the mix of the kept rows and that of all: 0 is the same mix, 1 another."""
    shares = mix.sizes / len(mix.codes)
    return total_variation(np.bincount(mix.codes[kept], minlength=mix.n) / len(kept), shares)


def chance_distortion(mix: Strata, n_keep: int) -> float:
    """The distortion to be expected of `n_keep` rows drawn at random, by the normal approximation."""
    n_rows = len(mix.codes)
    shares = mix.sizes / n_rows
    variance = shares * (1 - shares) / n_keep * (n_rows - n_keep) / max(1, n_rows - 1)
    return float(np.sqrt(2 / np.pi * variance).sum() / 2)


def excess_distortion(mix: Strata, kept: Positions) -> float:
    """The distortion less what chance would give, at least 0."""
    return max(0.0, distortion(mix, kept) - chance_distortion(mix, len(kept)))


def questions_repeat(questions: Strata) -> bool:
    """Whether at least half of the rows share their question with 20 others."""
    sizes = questions.sizes
    return bool(2 * sizes[sizes > _MIN_OTHERS].sum() >= sizes.sum() > 0)


def kept_set(values: Values, columns: Mapping[str, Strata], quota: str, n_keep: int) -> Positions:
    """What a quota of `QUOTAS` keeps, in ascending order."""
    if not QUOTAS[quota]:
        return top_set(values, n_keep)
    strata = joint(columns, QUOTAS[quota])
    return quota_set(values, strata, share_out(n_keep, strata.sizes))


def joint(columns: Mapping[str, Strata], names: tuple[str, ...]) -> Strata:
    """The strata of some columns together."""
    found = columns[names[0]]
    for name in names[1:]:
        found = found & columns[name]
    return found


def choose_quota(planted_ratio: Mapping[str, float], excess: Mapping[str, float]) -> str:
    """The quota of the lowest sum, coarsest among the tied ones; both give a number for each quota on offer."""
    sums = {quota: planted_ratio[quota] + excess[quota] for quota in QUOTAS if quota in excess}
    return next(quota for quota, total in sums.items() if total <= min(sums.values()) + _TIED_WITHIN)
