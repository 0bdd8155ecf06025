"""Keep the rows of the highest value within each stratum, so that the mix of the data stays as it was.

The plain top of any score skews the mix of questions and answers, and a model trained on it forgets what was left out.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.budgets import fill_budgets, share_out
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import Picks, Rule, option, read_columns
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.settings import read_share


@dataclass(frozen=True)
class Quota(Rule):
    """Each stratum's share of the budget, filled from its top."""

    help = "the highest of each stratum"

    quota_by: tuple[str, ...] = option(("source",), "columns that jointly make the strata", read_columns)
    temperature: float = option(1.0, "1 keeps each stratum's share of the rows, larger evens the shares out")
    min_per_stratum: int = option(0, "rows that every stratum keeps, or all that it has")
    skip_top: float = option(0.0, "share of each stratum to leave out at its top", partial(read_share, "skip_top"))

    def __post_init__(self) -> None:
        if not self.quota_by:
            raise SettingsError("quota_by: expected at least one column, such as source")
        if self.temperature <= 0:
            raise SettingsError(f"temperature={self.temperature}: expected a number above 0")
        if self.min_per_stratum < 0:
            raise SettingsError(f"min_per_stratum={self.min_per_stratum}: expected a number of rows, such as 10")

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        strata = strata_of(candidates.table, self.quota_by)
        budgets = share_out(n_keep, strata.sizes, self.temperature, self.min_per_stratum)
        return Picks(
            fill_budgets(candidates.values, strata, budgets, self.skip_top),
            f"among the highest of its {' and '.join(self.quota_by)}, within its share of the budget",
            {"n_strata": strata.n, "n_strata_left_out": int(np.count_nonzero(budgets == 0))},
        )
