"""What the trainings of an evidence run came to, with intervals that resample test rows and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

Line = dict[str, str]
RESAMPLES = 2000
SURE = 0.99  # share of the resamples in which the oracle must gain


@dataclass(frozen=True)
class Run:
    """Which trainings: all seeds of a method at a budget under an accounting."""

    method: str
    budget: float = 0.2
    accounting: str = "epochs"

    def has(self, line: Line) -> bool:
        budget = {"none": 0.0, "full": 1.0}.get(self.method, self.budget)
        accounting = "steps" if "+" in self.method else self.accounting
        wanted = (self.method, str(budget), accounting)
        return (line["method"], line["budget"], line["accounting"]) == wanted


def as_run(run: Run | str) -> Run:
    """A method at 20 % by its name; "full-steps" is the full pool with as many steps."""
    if run == "full-steps":
        return Run("full", accounting="steps")
    return Run(run) if isinstance(run, str) else run


@cache
def row_weights(sources: tuple[str, ...]) -> NDArray[np.float64]:
    """Weights of the test rows in each resample, drawn within sources that count alike; `[draw, row]`."""
    rng, names = np.random.default_rng(0), np.array(sources)
    weights = np.zeros((RESAMPLES, len(sources)))
    for name in (distinct := np.unique(names)):
        rows = np.flatnonzero(names == name)
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
        weights[:, rows] = counts / (len(rows) * len(distinct))
    return weights


@dataclass(frozen=True)
class Results:
    """The CSV's lines of one base and pool, and the source of each test row in the order of the outcomes."""

    lines: list[Line]
    test_sources: Sequence[str] = ()

    def values(self, run: Run | str, column: str = "em_mean") -> NDArray[np.float64]:
        """A column over the seeds, in the order of the seeds."""
        wanted = as_run(run)
        found = [line for line in self.lines if wanted.has(line) and line.get(column, "") != ""]
        return np.array([float(line[column]) for line in sorted(found, key=lambda line: int(line["seed"]))])

    @property
    def sources(self) -> list[str]:
        return sorted(set(self.test_sources))

    def is_right(self, run: Run | str) -> NDArray[np.float64]:
        """1 where a test row was answered rightly; `[seed, row]`."""
        wanted = as_run(run)
        found = sorted((line for line in self.lines if wanted.has(line)), key=lambda line: int(line["seed"]))
        n_rows = len(self.test_sources)
        packed = [np.frombuffer(bytes.fromhex(line["right"]), np.uint8) for line in found]
        return np.array([np.unpackbits(bits)[:n_rows] for bits in packed], np.float64).reshape(-1, n_rows)

    def on_common_seeds(self, *runs: Run | str) -> Results:
        """The lines of the seeds that all these runs have, so that a run that was cut short is compared fairly.

        The untouched base has one seed, which stands for all.
        """
        seeds = [
            {line["seed"] for line in self.lines if as_run(run).has(line)}
            for run in runs
            if as_run(run).method != "none"
        ]
        common = set.intersection(*seeds) if seeds else set()
        return replace(self, lines=[one for one in self.lines if one["seed"] in common or one["method"] == "none"])

    def resampled(self, run: Run | str, source: str = "") -> NDArray[np.float64]:
        """Mean exact match over sources in resamples of test rows and seeds: the same rows, and the same seeds where
        there are as many, for every method. `[draw]`; empty where nothing was trained.
        """
        is_right = self.is_right(run)
        if not len(is_right):
            return np.empty(0)
        weights = row_weights(tuple(self.test_sources))
        if source:
            weights = weights * (np.array(self.test_sources) == source)
            weights = weights / weights.sum(1, keepdims=True)
        by_seed = weights @ is_right.T
        drawn = np.random.default_rng(1).integers(0, len(is_right), (RESAMPLES, len(is_right)))
        return np.take_along_axis(by_seed, drawn, 1).mean(1)

    def difference(self, ours: Run | str, other: Run | str, source: str = "") -> tuple[float, float, float]:
        """Ours minus the other's exact match, with its 95 % interval; NaN where one is missing."""
        same = self.on_common_seeds(ours, other)
        first, second = same.resampled(ours, source), same.resampled(other, source)
        if not len(first) or not len(second):
            return (np.nan,) * 3
        column = f"em_{source}" if source else "em_mean"
        plain = same.values(ours, column).mean() - same.values(other, column).mean()
        return float(plain), *map(float, np.quantile(first - second, [0.025, 0.975]))

    def share_of_gain(self, ours: Run | str, random: Run | str, oracle: Run | str) -> tuple[float, float, float]:
        """(method - random) / (oracle - random) with its 95 % interval over test rows and seeds.

        NaN where the oracle's gain isn't above 0 in nearly all resamples: a share of it then tells nothing.
        """
        same = self.on_common_seeds(ours, random, oracle)
        drawn = [same.resampled(run) for run in (ours, random, oracle)]
        if not all(map(len, drawn)):
            return (np.nan,) * 3
        gain = drawn[2] - drawn[1]
        is_gain = gain > 0
        if is_gain.mean() < SURE:
            return (np.nan,) * 3
        shares = (drawn[0] - drawn[1])[is_gain] / gain[is_gain]
        mean = [same.values(run).mean() for run in (ours, random, oracle)]
        plain = (mean[0] - mean[1]) / (mean[2] - mean[1])
        return float(plain), *map(float, np.quantile(shares, [0.025, 0.975]))

    def worst_source(self, run: Run | str, random: Run | str) -> tuple[str, float, float, float]:
        """The source where a method is farthest below random, by how much, and that difference's interval.

        The lowest of several sources is low by chance too; the interval doesn't know of that choice.
        """
        same = self.on_common_seeds(run, random)
        gaps = {
            source: same.values(run, f"em_{source}").mean() - same.values(random, f"em_{source}").mean()
            for source in self.sources
        }
        worst = min(gaps, key=lambda source: gaps[source])
        return worst, *self.difference(run, random, worst)
