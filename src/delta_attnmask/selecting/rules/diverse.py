"""Of the rows of the highest value, keep those that differ most from each other: greedy k-center on embeddings.

Each pick is the row farthest from all picks before it (Sener and Savarese, arXiv:1708.00489), the first one the row of
the highest value. Libraries for this are unmaintained or need all pairs; this needs one block at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.budgets import Counts, best_first, fill_budgets, share_out
from delta_attnmask.selecting.candidates import Candidates, Positions
from delta_attnmask.selecting.rules import Picks, Rule, option, read_columns
from delta_attnmask.selecting.similarity import Floats, centred, similar_blocks
from delta_attnmask.selecting.strata import Codes, strata_of

_BLOCK_ROWS = 2048  # rows among which the farthest is sought


@dataclass(frozen=True)
class Diverse(Rule):
    """quota_by: columns whose values share the budget out first, as with `quota`; () for none."""

    help = "the most different ones among the highest (needs embeddings)"

    quota_by: tuple[str, ...] = option((), "columns that share the budget out first", read_columns)
    pool: float = option(2.0, "how many times the budget to choose from")

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise SettingsError(f"pool={self.pool}: expected how many times the budget to choose from, such as 2")

    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        """k-center within blocks of similar rows of a stratum; each block gets its share."""
        strata = strata_of(candidates.table, self.quota_by)
        budgets = share_out(n_keep, strata.sizes)
        pool_sizes = np.minimum(strata.sizes, np.ceil(self.pool * budgets).astype(np.int64))
        pooled = np.sort(fill_budgets(candidates.values, strata, pool_sizes))
        values, vectors, codes = candidates.values[pooled], candidates.embeddings(pooled), strata.codes[pooled]
        floats = centred(vectors)
        blocks = list(similar_blocks(vectors, strata.take(pooled), _BLOCK_ROWS))
        picks = [
            block[k_center(floats[block], int(np.argmax(values[block])), int(budget))]
            for block, budget in zip(blocks, _block_budgets(blocks, codes, budgets), strict=True)
        ]
        kept = pooled[np.sort(np.concatenate(picks))]
        return Picks(
            kept[best_first(candidates.values[kept], n_keep)],
            f"among the most diverse of the {len(pooled)} highest",
            {"n_pool": len(pooled), "n_strata": strata.n, "n_blocks": len(blocks)},
        )


def _block_budgets(blocks: Sequence[Positions], codes: Codes, budgets: Counts) -> Counts:
    """Each stratum's budget shared out over its blocks."""
    strata = np.array([codes[block[0]] for block in blocks])
    sizes = np.array([len(block) for block in blocks])
    shares = np.zeros(len(blocks), dtype=np.int64)
    for code in np.unique(strata):
        is_own = strata == code
        shares[is_own] = share_out(int(budgets[code]), sizes[is_own])
    return shares


def k_center(floats: Floats, first: int, n_keep: int) -> Positions:
    """Positions of `n_keep` vectors of length 1, each the farthest from those before it; ties to the lower one."""
    picks = np.zeros(n_keep, dtype=np.intp)
    nearest = np.full(len(floats), -np.inf, dtype=np.float32)  # cosine with the nearest pick
    for idx in range(n_keep):
        picks[idx] = first if idx == 0 else int(np.argmin(nearest))
        np.maximum(nearest, floats @ floats[picks[idx]], out=nearest)
        nearest[picks[idx]] = np.inf
    return picks
