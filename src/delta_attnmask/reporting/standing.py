"""Each row's place in a selection: its value, whether it is kept, and the cut of its stratum. No torch here."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.strata import Strata, strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.statistics import Values


@dataclass(frozen=True)
class Standing:
    """The candidates of a selection, in the order of the input. Arrays are [n_candidates] unless said otherwise.

    table: their scores. values: what they are ranked by, higher is better.
    strata: by the selection's quota; one stratum where it has none. cuts: lowest value kept; NaN where none is. [n]
    """

    selection: Selection
    table: pa.Table
    values: Values
    is_kept: NDArray[np.bool_]
    strata: Strata
    cuts: Values

    def __len__(self) -> int:
        return len(self.values)

    def rank(self, position: int) -> int:
        """Rank among all candidates, from 1; equals share the best."""
        return int(np.count_nonzero(self.values > self.values[position])) + 1

    def rank_in_stratum(self, position: int) -> tuple[int, int]:
        """Rank in the stratum, from 1, and the rows of the stratum."""
        is_same = self.strata.codes == self.strata.codes[position]
        return int(np.count_nonzero(self.values[is_same] > self.values[position])) + 1, int(is_same.sum())


def find_standing(selection: Selection, candidates: Candidates) -> Standing:
    """The standing of the candidates that a selection chose from."""
    is_kept = np.isin(candidates.indices, selection.indices)
    strata = strata_of(candidates.table, selection.quota_by)
    cuts = np.full(strata.n, np.inf)
    np.minimum.at(cuts, strata.codes[is_kept], candidates.values[is_kept])
    cuts[np.isinf(cuts)] = np.nan
    return Standing(selection, candidates.table, candidates.values, is_kept, strata, cuts)
