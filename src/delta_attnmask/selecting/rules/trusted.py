"""Draw the budget at random from the rows of the highest value in each stratum.

The extreme top of a score holds what the model already knows. A random part of the best rows is less one-sided, and
keeps more defects. On a model that knows the tasks it trains worse than `quota` does (docs/calibration.md).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.budgets import fill_budgets, share_out
from delta_attnmask.selecting.candidates import Candidates, Positions, to_values
from delta_attnmask.selecting.rules import Picks, Rule, option, read_columns
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.settings import read_share
from delta_attnmask.statistics import Values

Prefer = Literal["typical", "easy", "hard"]


@dataclass(frozen=True)
class Trusted(Rule):
    """quota_by: columns whose values share the budget out first, as with `quota`; () for none.

    copies: `select_rows` turns it into `above`, by the planted copies (threshold samples: arXiv:2001.10528).
    """

    help = "a random part of the rows of highest value"

    quota_by: tuple[str, ...] = option((), "columns that share the budget out first", read_columns)
    pool: float = option(2.0, "how many times the budget to choose from")
    above: float | None = option(None, "lowest value that is trusted, such as 0.8 for p_good, instead of a pool")
    copies: float | None = option(
        None,
        "instead of above: the value that only this share of planted copies reaches, such as 5%",
        partial(read_share, "copies"),
    )
    prefer: Prefer = option("typical", "typical: at random; easy or hard: by the loss, lowest or highest first")
    seed: int = option(0, "seed of the draw")

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise SettingsError(f"pool={self.pool}: expected how many times the budget to choose from, such as 2")
        if self.prefer not in get_args(Prefer):
            raise SettingsError(f"prefer={self.prefer!r}: expected one of {', '.join(get_args(Prefer))}")

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        """Each stratum gives its share of the budget; where too few rows are trusted, its next ones fill it."""
        strata = strata_of(candidates.table, self.quota_by)
        budgets = share_out(n_keep, strata.sizes)
        if self.above is None:
            pool_sizes = np.minimum(strata.sizes, np.ceil(self.pool * budgets).astype(np.int64))
        else:
            trusted = np.bincount(strata.codes[candidates.values >= self.above], minlength=strata.n)
            pool_sizes = np.maximum(trusted, budgets)
        pooled = np.sort(fill_budgets(candidates.values, strata, pool_sizes))
        order = self._order(candidates, pooled)
        kept = pooled[fill_budgets(order, strata.take(pooled), budgets[np.unique(strata.codes[pooled])])]
        return Picks(
            kept[np.argsort(-candidates.values[kept], kind="stable")],
            f"drawn from the {len(pooled)} trusted rows of {len(candidates)}",
            {
                "n_pool": len(pooled),
                "threshold": float(candidates.values[pooled].min()),
                "n_strata_widened": 0 if self.above is None else int((budgets > trusted).sum()),
            },
        )

    def _order(self, candidates: Candidates, pooled: Positions) -> Values:
        """What decides among the trusted rows, highest first. [n_pooled]"""
        if self.prefer == "typical":
            drawn: Values = np.random.default_rng(self.seed).random(len(candidates))
            return drawn[pooled]
        if "loss" not in candidates.table.column_names:
            raise SettingsError(f"prefer={self.prefer!r}: needs the column loss")
        loss: Values = to_values(candidates.table, "loss")[pooled]
        return -loss if self.prefer == "easy" else loss
