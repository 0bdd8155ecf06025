"""What was kept, in which order, and why. No torch here."""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral, Real
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

    @classmethod
    def of(cls, keep: "str | float | Budget") -> "Budget":
        """The same of what Python's users write: also 0.2 and 500."""
        if isinstance(keep, Budget):
            return keep
        if isinstance(keep, str):
            return cls.parse(keep)
        if isinstance(keep, Integral) and not isinstance(keep, bool) and keep >= 1:
            return cls(n_rows=int(keep))
        if isinstance(keep, Real) and not isinstance(keep, Integral) and 0 < keep <= 1:
            return cls(share=Fraction(str(float(keep))))
        raise SettingsError(f"keep={keep!r}: expected a share such as '20%' or 0.2, or a count such as 500")

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

    indices: positions in the input, best first. [n_kept]
    reason: why they are kept.
    rule, options: the rule's name, and all of its options. column: the column that it ranks by.
    budget: what was asked for. n_candidates: the rows it chose from: scored, with a finite value, no duplicates.
    duplicates: rows that weren't among them, as a better one says the same. [n_duplicates]
    details: what else there is to report, as plain JSON values.
    """

    indices: NDArray[np.int64]
    reason: str
    rule: str
    column: str
    budget: Budget
    n_candidates: int
    options: dict[str, Any] = field(default_factory=dict)
    duplicates: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    details: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def quota_by(self) -> tuple[str, ...]:
        """The columns whose values share the budget out; () for none."""
        return tuple(self.options.get("quota_by", ()))

    @property
    def report(self) -> dict[str, Any]:
        """What was kept and why, as plain JSON values: rule, quota, rows of each source, distortion, warnings.

        sources_left_out: sources of which rows could be kept, but none is.
        """
        sources = self.details.get("sources", {})
        own = {
            "rule": self.rule,
            "options": self.options,
            "column": self.column,
            "budget": str(self.budget),
            "n_kept": len(self),
            "n_candidates": self.n_candidates,
            "reasons": {self.reason: len(self)},
            "sources_left_out": [name for name, rows in sources.items() if rows["left"] and not rows["kept"]],
        }
        return own | self.details | own
