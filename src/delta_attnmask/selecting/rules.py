"""What a rule gets and gives. A rule is one file of this folder with one function, and a line in `select.RULES`."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidates:
    """The rows that can be kept, in the order of the input.

    values: the column that is ranked by; finite, higher is better. [n_candidates]
    table: all columns of the same rows, for rules that look at more.
    """

    values: NDArray[np.float64]
    table: pa.Table


@dataclass(frozen=True)
class Choice:
    """positions: among the candidates, best first. reason_idx: which of `reasons` applies. Both [n_kept]"""

    positions: NDArray[np.intp]
    reasons: tuple[str, ...]
    reason_idx: NDArray[np.int32]
    details: dict[str, Any] = field(default_factory=dict)


class Rule(Protocol):
    def __call__(self, candidates: Candidates, n_keep: int) -> Choice:
        """Choose exactly `n_keep` of the candidates; `n_keep` is at least 1 and at most their number."""
