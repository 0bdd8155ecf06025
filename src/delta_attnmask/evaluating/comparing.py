"""Several evaluations side by side, on the answers that all of them gave. No torch here.

Differences are paired: the same rows, and of several seeds the same seeds. Their intervals draw rows (of each source,
for the mean over sources); the p-value is an exact sign test over the rows on which two methods differ (with one answer
a row and one seed that is McNemar's test). The spread over seeds is reported beside it: what rows say and what seeds
say are two things.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.evaluating.contenders import Contender, seconds_spent
from delta_attnmask.evaluating.summarising import MEASURES, own_lines, row_sums, to_numbers
from delta_attnmask.statistics import Values, mean_of_shares, sign_test

_TURNS_PER_ROW = 1 << 20  # makes one number of row and turn


@dataclass(frozen=True)
class _Answers:
    """The answers that all evaluations gave; rows and sources of each. right: by method, `[seed, answer]` in [0, 1]."""

    rows: NDArray[np.int64]
    sources: NDArray[np.str_]
    right: dict[str, Values]
    n_left_out: int

    @classmethod
    def of(cls, contenders: Sequence[Contender], measure: str) -> "_Answers":
        """Raises ArtifactError where no answer is common to all."""
        tables = [own_lines(folder.read()) for one in contenders for folder in one.folders]
        places = [table["row"].to_numpy() * _TURNS_PER_ROW + table["turn"].to_numpy() for table in tables]
        common = reduce(np.intersect1d, places)
        if not len(common):
            raise ArtifactError("the evaluations have no answer in common; see the reasons in their evaluation.json")
        chosen = [np.intersect1d(common, place, return_indices=True)[2] for place in places]
        found = iter([to_numbers(table, measure)[at] for table, at in zip(tables, chosen, strict=True)])
        right = {one.name: np.stack([next(found) for _ in one.folders]) for one in contenders}
        sources = np.array(tables[0]["source"].to_pylist(), dtype=np.str_)[chosen[0]]
        n_left_out = len(np.unique(np.concatenate(places))) - len(common)
        return cls(common // _TURNS_PER_ROW, sources, right, n_left_out)

    def by_source(self, values: Values) -> dict[str, tuple[Values, Values]]:
        """By source, the sums of each row's values, and its number of answers."""
        masks = {name: self.sources == name for name in sorted(set(self.sources.tolist()))}
        return {name: row_sums(self.rows[mask], values[mask]) for name, mask in masks.items()}

    def mean_over_sources(self, values: Values) -> float:
        return float(np.mean([sums.sum() / n.sum() for sums, n in self.by_source(values).values()]))

    def estimates(self, values: Values, seed: int) -> dict[str, Any]:
        """The means of some values of the answers, with their intervals."""
        groups = self.by_source(values)
        return {
            "mean_over_sources": asdict(mean_of_shares(list(groups.values()), seed)),
            "pooled": asdict(mean_of_shares([row_sums(self.rows, values)], seed)),
            "sources": {name: asdict(mean_of_shares([group], seed)) for name, group in groups.items()},
        }


def compare_contenders(
    contenders: Sequence[Contender], baseline: str | None = None, measure: str = "exact", seed: int = 0
) -> dict[str, Any]:
    """All figures of a comparison as plain JSON values; the first contender is the baseline if none is named.

    measure: "exact" or "normalised". Raises SettingsError for an unknown baseline or measure, ArtifactError where no
    answer is common to all.
    """
    by_name = {contender.name: contender for contender in contenders}
    base = by_name.get(baseline or contenders[0].name)
    if base is None:
        raise SettingsError(f"baseline={baseline!r}: there is no such name; there are {', '.join(by_name)}")
    if measure not in MEASURES:
        raise SettingsError(f"measure={measure!r}: expected one of {', '.join(MEASURES)}")
    answers = _Answers.of(contenders, measure)
    figures = {name: _figures(contender, answers, seed) for name, contender in by_name.items()}
    base_s = figures[base.name]["seconds"]["total_s"]
    for name, one in figures.items():
        if name != base.name:
            one["against_baseline"] = _difference(by_name[name], base, answers, seed)
        total = one["seconds"]["total_s"]
        one["seconds"]["speedup"] = base_s / total if base_s is not None and total else None
    test = contenders[0].folders[0].manifest
    return {
        "schema": 1,
        "measure": measure,
        "baseline": base.name,
        "n_answers": len(answers.rows),
        "n_rows": len(np.unique(answers.rows)),
        "n_left_out": answers.n_left_out,
        "test": asdict(test.input) | {"path": test.data},
        "methods": figures,
    }


def _figures(contender: Contender, answers: _Answers, seed: int) -> dict[str, Any]:
    right = answers.right[contender.name]
    return {
        "folders": [str(folder.path) for folder in contender.folders],
        "seeds": contender.seeds,
        **answers.estimates(right.mean(0), seed),
        "over_seeds": _spread([answers.mean_over_sources(one) for one in right]),
        "seconds": seconds_spent(contender),
    }


def _difference(contender: Contender, base: Contender, answers: _Answers, seed: int) -> dict[str, Any]:
    """Contender less baseline, on the same answers (and of paired seeds alone, where seeds can be paired)."""
    right, base_right = answers.right[contender.name], answers.right[base.name]
    pairs = _pair_seeds(contender, base)
    if pairs:
        right, base_right = right[[own for own, _ in pairs]], base_right[[other for _, other in pairs]]
    difference = right.mean(0) - base_right.mean(0)
    by_row, _ = row_sums(answers.rows, difference)
    n_better, n_worse = int((by_row > 1e-12).sum()), int((by_row < -1e-12).sum())
    by_seed = right - base_right if pairs else right[:0]
    return {
        **answers.estimates(difference, seed),
        "rows_better": n_better,
        "rows_worse": n_worse,
        "p": sign_test(n_better, n_worse),
        "paired_seeds": len(pairs),
        "by_seed": _spread([answers.mean_over_sources(one) for one in by_seed]),
    }


def _pair_seeds(contender: Contender, base: Contender) -> list[tuple[int, int]]:
    """Places of evaluations of the same seed in both; by their order if seeds aren't known and the counts agree."""
    mine, theirs = contender.seeds, base.seeds
    if mine is not None and theirs is not None:
        return [(mine.index(seed), theirs.index(seed)) for seed in mine if seed in theirs]
    n_mine, n_theirs = len(contender.folders), len(base.folders)
    return [(index, index) for index in range(n_mine)] if n_mine == n_theirs else []


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """The values and their standard deviation; None of fewer than two."""
    return {"values": values, "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}
