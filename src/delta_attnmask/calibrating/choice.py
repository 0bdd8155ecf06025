"""Which setting and form of the score to use, by a stated rule. Numpy only."""

from collections.abc import Mapping, Sequence

import numpy as np

from delta_attnmask.calibration import Candidate
from delta_attnmask.statistics import Separation

RULE = """\
A candidate is a mask setting with a form (a derived column) or a rival score. The rule, on the half of the sample that
is meant for choosing:

1. A kind of defect is visible if the best candidate's AUROC on it has a 95 % interval above 0.55.
2. A candidate's value is (2 * worst + mean) / 3 of its AUROC over the visible kinds, so the worst counts more.
3. The best value wins among the settings of Δ; those within 0.005 of it count as tied, and of these the cheapest is
   taken (the shortest tail, then the better value).

What is reported of the choice comes from the other half."""

_VISIBLE_ABOVE = 0.55
_TIED_WITHIN = 0.005

Separations = Mapping[str, Separation]  # kind of defect -> separation


def visible_kinds(separations: Sequence[Separations], kinds: Sequence[str]) -> list[str]:
    """The kinds that at least the best candidate can tell."""
    best = {kind: _best(separations, kind) for kind in kinds}
    return [kind for kind, found in best.items() if found is not None and found.low > _VISIBLE_ABOVE]


def value(separations: Separations, kinds: Sequence[str]) -> float:
    """(2 * worst + mean) / 3 of the AUROC over `kinds`; NaN where one is missing."""
    aurocs = np.array([separations[kind].auroc for kind in kinds])
    return float((2 * aurocs.min() + aurocs.mean()) / 3) if aurocs.size else float("nan")


def choose(candidates: Sequence[Candidate], separations: Sequence[Separations], kinds: Sequence[str]) -> int:
    """Index of the chosen candidate among the settings of Δ; kinds are the visible ones."""
    values = np.array(
        [
            value(found, kinds) if candidate.settings is not None and not candidate.is_control else np.nan
            for candidate, found in zip(candidates, separations, strict=True)
        ]
    )
    tied = np.flatnonzero(values >= np.nanmax(values) - _TIED_WITHIN)
    return int(min(tied, key=lambda index: (candidates[int(index)].tail, -values[index])))


def _best(separations: Sequence[Separations], kind: str) -> Separation | None:
    found = [each[kind] for each in separations if not np.isnan(each[kind].auroc)]
    return max(found, key=lambda separation: separation.auroc, default=None)
