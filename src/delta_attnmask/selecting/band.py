"""Leave out the extreme top, then keep the rows of the highest value.

What scores highest of all is often noise that a score can't tell from good rows: copies, trivial or broken answers.
"""

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.rules import Candidates, Choice, Positions, Rule, Values, one_reason
from delta_attnmask.selecting.top import best_first, top_set


def band(skip_top: float = 0.02) -> Rule:
    """A rule that leaves out the top `skip_top` of the candidates, a share from 0 to below 1."""
    require_share(skip_top)

    def keep_band(candidates: Candidates, n_keep: int) -> Choice:
        n_skip = n_skipped(skip_top, len(candidates), n_keep)
        kept = best_first(candidates.values, band_set(candidates.values, n_keep, n_skip))
        reason = f"among the {n_keep} highest of {len(candidates)} below the top {n_skip}"
        highest, lowest = candidates.values[kept[[0, -1]]].tolist()
        return one_reason(kept, reason, n_skipped=n_skip, ceiling=highest, threshold=lowest)

    return keep_band


def band_set(values: Values, n_keep: int, n_skip: int) -> Positions:
    """The positions of the `n_keep` highest values behind the `n_skip` highest, ascending."""
    kept = top_set(values, n_keep + n_skip)
    if not n_skip:
        return kept
    is_skipped = np.zeros(len(kept), dtype=bool)
    is_skipped[top_set(values[kept], n_skip)] = True
    return kept[~is_skipped]


def n_skipped(skip_top: float, n_candidates: int, n_keep: int) -> int:
    """How many rows a share leaves out; fewer where the budget needs them."""
    return min(int(skip_top * n_candidates), n_candidates - n_keep)


def require_share(skip_top: float) -> None:
    if not 0 <= skip_top < 1:
        raise SettingsError(f"skip_top={skip_top}: expected a share such as 2%, from 0 to below 100%")
