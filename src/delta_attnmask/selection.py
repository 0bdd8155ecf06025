"""What was kept, in which order, and why. No torch here."""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError


@dataclass(frozen=True)
class Budget:
    """How much is kept: a share of the rows that can be kept, or a count of rows. Exactly one is given."""

    share: Fraction | None = None
    n_rows: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `20%`, `12.5%` or `500`."""
        if (percent := re.fullmatch(r"(\d+(?:\.\d+)?)%", text.strip())) and 0 < Fraction(percent[1]) <= 100:
            return cls(share=Fraction(percent[1]) / 100)
        if re.fullmatch(r"[1-9]\d{0,17}", text.strip()):
            return cls(n_rows=int(text))
        raise SettingsError(f"keep={text!r}: expected a share such as 20% (at most 100%) or a count such as 500")

    def resolve(self, n_candidates: int) -> int:
        """The number of rows to keep: a share is rounded to the nearest, halves up, and is at least one row."""
        if self.share is not None:
            return min(n_candidates, max(1, int(self.share * n_candidates + Fraction(1, 2))))
        if self.n_rows is None or self.n_rows > n_candidates:
            raise SettingsError(f"keep={self.n_rows}: only {n_candidates} rows have a score and can be kept")
        return self.n_rows

    def __str__(self) -> str:
        return f"{float(self.share * 100):g}%" if self.share is not None else str(self.n_rows)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rows that a rule keeps.

    rows: positions in the input, best first. [n_kept]
    reasons: why rows are kept; `reason_idx` says for each row which of them applies. [n_kept]
    rule, options: the rule's name in the registry, and what it was told. column: the column that it ranks by.
    budget: what was asked for. n_candidates: the rows it was asked of: status ok and a finite value in `column`.
    details: what else the rule wants to be known, as plain JSON values.
    """

    rows: NDArray[np.int64]
    reasons: tuple[str, ...]
    reason_idx: NDArray[np.int32]
    rule: str
    column: str
    budget: Budget
    n_candidates: int
    options: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)
