"""Keep the rows of the highest value; of equal ones, those that come first in the input.

The plain top skews the mix of sources and answers; `quota` doesn't.
"""

from dataclasses import dataclass

from delta_attnmask.selecting.budgets import best_first
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import Picks, Rule


@dataclass(frozen=True)
class Top(Rule):
    help = "the highest; this skews the mix of the data"

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        kept = best_first(candidates.values, n_keep)
        reason = f"among the {n_keep} highest of {len(candidates)}"
        return Picks(kept, reason, {"threshold": float(candidates.values[kept[-1]])})
