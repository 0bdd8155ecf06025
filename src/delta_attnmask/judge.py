"""A judge: from a row's scores to the chance that the row is good, as learned from planted copies. NumPy alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

P_GOOD = "p_good"  # the column that a judge gives

_EDGE = 0.01  # the outermost quantiles; values beyond them count like them

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """A column that a judge reads.

    column: its name, stored or derived. knots: its values at evenly spaced quantiles of the rows that the judge learned
    from, ascending. weight: log-odds for one standard deviation, after the column was made normal by these quantiles.
    """

    column: str
    knots: tuple[float, ...]
    weight: float

    @classmethod
    def of(cls, column: str, values: Column, n_knots: int = 33) -> Self:
        """A feature without weight, its knots taken from these values; those that are missing don't count."""
        known = values[np.isfinite(values)]
        knots = np.quantile(known, np.linspace(0, 1, n_knots)) if known.size else np.zeros(n_knots)
        return cls(column, tuple(map(float, knots)), 0.0)

    def normal(self, values: Column) -> Column:
        """The values as normal scores from -2.3 to 2.3, 0 where one is missing; linear between the knots."""
        shares = np.linspace(0, 1, len(self.knots)).clip(_EDGE, 1 - _EDGE)
        knots, where = np.unique(self.knots, return_inverse=True)
        share_of_knot = np.bincount(where, shares) / np.bincount(where)  # equal knots share their middle
        scores = np.array([NormalDist().inv_cdf(share) for share in share_of_knot])
        found: Column = np.where(np.isfinite(values), np.interp(values, knots, scores), 0.0)
        return found


@dataclass(frozen=True)
class Judge:
    """A logistic model of some features. `p_good` is calibrated where originals and planted copies are equally many."""

    features: tuple[Feature, ...]
    intercept: float

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(feature.column for feature in self.features)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the features with their weights."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def p_good(self, column: Callable[[str], Column]) -> Column:
        """The chance of each row to be good. [n_rows]

        column: gives the columns by name, NaN where a row has no value.
        """
        weighted = [feature.weight * feature.normal(column(feature.column)) for feature in self.features]
        odds = np.sum(weighted, axis=0) + self.intercept
        chance: Column = 1 / (1 + np.exp(-odds))
        return chance

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        features = [{"column": one.column, "weight": one.weight, "knots": list(one.knots)} for one in self.features]
        return {"features": features, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; raises ValueError, KeyError or TypeError for anything else."""
        features = tuple(
            Feature(str(one["column"]), _numbers(one["knots"]), float(one["weight"])) for one in values["features"]
        )
        numbers = [float(values["intercept"]), *(feature.weight for feature in features)]
        if not features or not all(map(isfinite, numbers)):
            raise ValueError("no judge: features, weights and intercept are expected")
        return cls(features, numbers[0])


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if len(numbers) < 2 or list(numbers) != sorted(numbers) or not all(map(isfinite, numbers)):
        raise ValueError("no judge: knots are expected to ascend")
    return numbers
