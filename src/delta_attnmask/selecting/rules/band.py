"""Leave out the extreme top, then keep the rows of the highest value.

The highest scores often belong to noise that a score can't distinguish from good rows: copies, trivial
or broken answers.
"""

from dataclasses import dataclass
from functools import partial

from delta_attnmask.selecting.budgets import best_first
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import Picks, Rule, option
from delta_attnmask.settings import read_share


@dataclass(frozen=True)
class Band(Rule):
    help = "the highest rows below the top, which is left out"

    skip_top: float = option(
        0.02,
        "share of all rows to leave out at the top, fewer where the budget needs them",
        partial(read_share, "skip_top"),
    )

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        n_skip = min(int(self.skip_top * len(candidates)), len(candidates) - n_keep)
        kept = best_first(candidates.values, n_skip + n_keep)[n_skip:]
        highest, lowest = candidates.values[kept[[0, -1]]].tolist()
        reason = f"among the {n_keep} highest of {len(candidates)} below the top {n_skip}"
        return Picks(kept, reason, {"n_skipped": n_skip, "ceiling": highest, "threshold": lowest})
