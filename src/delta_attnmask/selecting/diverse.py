"""Of the rows of the highest value, keep those that differ most from each other: greedy k-center on embeddings.

Each pick is the row farthest from all picks before it (Sener and Savarese, arXiv:1708.00489), the first one the row of
the highest value. Libraries for this are unmaintained or need all pairs; this needs one block at a time.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.blocks import Floats, centred, similar_blocks
from delta_attnmask.selecting.quota import quota_set
from delta_attnmask.selecting.rules import Candidates, Choice, Positions, Rule, one_reason
from delta_attnmask.selecting.shares import Counts, share_out
from delta_attnmask.selecting.strata import Codes, candidate_strata
from delta_attnmask.selecting.top import best_first

_BLOCK_ROWS = 2048  # rows among which the farthest is sought


def diverse(columns: Sequence[str] = (), pool: float = 2.0) -> Rule:
    """A rule that takes the rows of the highest value, `pool` times the budget, and keeps the most diverse of them.

    columns: their values share the budget out first, as with `quota`.
    """
    if pool < 1:
        raise SettingsError(f"pool={pool}: expected how many times the budget to choose from, at least 1, such as 2")
    return partial(keep_diverse, columns=tuple(columns), pool=pool)


def keep_diverse(candidates: Candidates, n_keep: int, *, columns: Sequence[str] = (), pool: float = 2.0) -> Choice:
    """k-center within blocks of similar rows of a stratum; each block gets its share. Best first."""
    strata = candidate_strata(candidates, columns)
    budgets = share_out(n_keep, strata.sizes)
    pooled = quota_set(candidates.values, strata, np.minimum(strata.sizes, np.ceil(pool * budgets).astype(np.int64)))
    values, vectors, codes = candidates.values[pooled], candidates.embeddings(pooled), strata.codes[pooled]
    floats = centred(vectors)
    blocks = list(similar_blocks(vectors, strata.take(pooled), _BLOCK_ROWS))
    picks = [
        block[k_center(floats[block], int(np.argmax(values[block])), int(budget))]
        for block, budget in zip(blocks, _block_budgets(blocks, codes, budgets), strict=True)
    ]
    positions = best_first(candidates.values, pooled[np.sort(np.concatenate(picks))])
    reason = f"among the most diverse of the {len(pooled)} highest"
    return one_reason(positions, reason, n_pool=len(pooled), n_strata=strata.n, n_blocks=len(blocks))


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
