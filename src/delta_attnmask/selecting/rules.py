"""What a rule gets and gives. A rule is one file of this folder: a function of its options that returns a `Rule`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.embeddings import Vectors

Values = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Candidates:
    """The rows that can be kept, in the order of the input.

    values: the column that is ranked by; finite, higher is better. [n_candidates]
    table: rows with the other columns, for rules that look at more.
    positions: where the candidates stand in `table`, ascending; None if its rows are just the candidates.
        [n_candidates]
    vectors: gives the embeddings of some rows of `table` by their positions; None where there are none.
    """

    values: Values
    table: pa.Table
    positions: Positions | None = None
    vectors: Callable[[Positions], Vectors] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def in_table(self, kept: Positions) -> Positions:
        """Where some candidates stand in `table`."""
        return kept if self.positions is None else self.positions[kept]

    def take(self, kept: Positions) -> "Candidates":
        """Some of the candidates, in ascending order."""
        return replace(self, values=self.values[kept], positions=self.in_table(kept))

    def embeddings(self, kept: Positions | None = None) -> Vectors:
        """The embeddings of some candidates, of all by default; SettingsError where there are none."""
        if self.vectors is None:
            raise SettingsError("this needs embeddings of the rows; score into a new folder with --embeddings")
        return self.vectors(self.in_table(np.arange(len(self)) if kept is None else kept))


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
