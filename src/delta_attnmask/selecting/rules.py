"""What a rule gets and gives. A rule is one file of this folder: a function of its options that returns a `Rule`."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Values = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Candidates:
    """The rows that can be kept, in the order of the input.

    values: the column that is ranked by; finite, higher is better. [n_candidates]
    table: rows with the other columns, for rules that look at more.
    positions: where the candidates stand in `table`, ascending; None if its rows are just the candidates.
        [n_candidates]
    """

    values: Values
    table: pa.Table
    positions: Positions | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Choice:
    """positions: among the candidates, best first. reason_idx: which of `reasons` applies. Both [n_kept]"""

    positions: Positions
    reasons: tuple[str, ...]
    reason_idx: NDArray[np.int32]
    details: dict[str, Any] = field(default_factory=dict)


class Rule(Protocol):
    def __call__(self, candidates: Candidates, n_keep: int) -> Choice:
        """Choose exactly `n_keep` of the candidates; `n_keep` is at least 1 and at most their number."""


def one_reason(positions: Positions, reason: str, **details: Any) -> Choice:
    """A choice in which every row is kept for the same reason."""
    return Choice(positions, (reason,), np.zeros(len(positions), dtype=np.int32), details)
