"""Leave out rows that say what a better row says already: the same bytes, or nearly the same embedding."""

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.blocks import Floats, centred, similar_blocks
from delta_attnmask.selecting.rules import Candidates, Positions
from delta_attnmask.selecting.strata import candidate_strata

_BLOCK_ROWS = 4096  # rows that are held against each other


def without_duplicates(candidates: Candidates, min_cosine: float) -> Candidates:
    """Of rows that say the same only the best, the first of equal ones.

    min_cosine: 1 for rows of the same bytes alone, less for rows whose embeddings have at least this cosine too.
    """
    if not 0 < min_cosine <= 1:
        raise SettingsError(f"drop_duplicates={min_cosine}: expected a cosine such as 0.95, or 1 for exact copies")
    distinct = without_copies(candidates)
    return distinct if min_cosine == 1 else without_near_copies(distinct, min_cosine)


def without_copies(candidates: Candidates) -> Candidates:
    """Of rows with the same bytes only the best, the first of equal ones."""
    codes = candidate_strata(candidates, ["key"]).codes
    best = np.lexsort((np.arange(len(codes)), -candidates.values, codes))
    is_first = np.ones(len(best), dtype=bool)
    is_first[1:] = codes[best[1:]] != codes[best[:-1]]
    return candidates.take(np.sort(best[is_first]))


def without_near_copies(candidates: Candidates, min_cosine: float) -> Candidates:
    """Going from the best row down, leave out rows whose embedding has at least this cosine with a row that stays.

    Rows are held against those of their source; in sources of
    more than 4,096 rows against similar ones (`similar_blocks`), so some pairs aren't seen there.
    Cosines are those of embeddings without their common mean.
    """
    vectors = candidates.embeddings()
    floats = centred(vectors)
    kept = [
        block[_distinct(floats[block], candidates.values[block], min_cosine)]
        for block in similar_blocks(vectors, candidate_strata(candidates, ["source"]), _BLOCK_ROWS)
    ]
    return candidates.take(np.sort(np.concatenate(kept)))


def _distinct(floats: Floats, values: NDArray[np.float64], min_cosine: float) -> Positions:
    """Which rows of a block stay."""
    order = np.argsort(-values, kind="stable")
    sorted_floats = floats[order]
    is_close = np.tril(sorted_floats @ sorted_floats.T >= min_cosine, -1)
    is_kept = np.ones(len(order), dtype=bool)
    for idx in np.flatnonzero(is_close.any(axis=1)):
        is_kept[idx] = not is_kept[is_close[idx]].any()
    return order[is_kept]
