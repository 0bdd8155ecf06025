"""Draw rows at random: the control that every other rule has to beat."""

from dataclasses import dataclass

import numpy as np

from delta_attnmask.selecting.budgets import fill_budgets, share_out
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import Picks, Rule, option, read_columns
from delta_attnmask.selecting.strata import strata_of


@dataclass(frozen=True)
class Random(Rule):
    """quota_by: columns whose values share the budget out first, as with `quota`; () for none."""

    help = "random rows, as a control"

    quota_by: tuple[str, ...] = option((), "columns that share the budget out first", read_columns)
    seed: int = option(0, "seed of the draw")

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        strata = strata_of(candidates.table, self.quota_by)
        drawn = np.random.default_rng(self.seed).random(len(candidates))
        kept = fill_budgets(drawn, strata, share_out(n_keep, strata.sizes))
        return Picks(kept, f"drawn at random with the seed {self.seed}", {"n_strata": strata.n})
