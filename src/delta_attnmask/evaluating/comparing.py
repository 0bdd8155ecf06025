"""Several evaluations side by side, on the answers that all of them gave. No torch here.

Differences are paired: the same rows, and of several seeds the same seeds. Their intervals draw rows (of each source,
for the mean over sources); the p-value is an exact sign test over the rows on which two methods differ (with one answer
a row and one seed that is McNemar's test). The spread over seeds is reported beside it: what rows say and what seeds
say are two things.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.evaluating.contenders import Contender, seconds_spent
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.evaluating.summarising import MEASURES, own_lines, row_sums, to_numbers
from delta_attnmask.statistics import Values, mean_of_shares, sign_test

_TURNS_PER_ROW = 1 << 20  # makes one number of row and turn


@dataclass(frozen=True)
class _Answers:
    """The answers of one evaluation: their places (row and turn in one number, ascending) and what was right."""

    places: NDArray[np.int64]
    sources: NDArray[np.str_]
    right: dict[str, Values]

    @classmethod
    def of(cls, folder: EvaluationFolder) -> "_Answers":
        lines = own_lines(folder.read())
        places = lines["row"].to_numpy().astype(np.int64) * _TURNS_PER_ROW + lines["turn"].to_numpy()
        order = np.argsort(places)
        right = {name: to_numbers(lines, name)[order] for name in MEASURES}
        return cls(places[order], np.array(lines["source"].to_pylist(), dtype=np.str_)[order], right)

    def at(self, places: NDArray[np.int64]) -> "_Answers":
        chosen = np.searchsorted(self.places, places)
        return _Answers(places, self.sources[chosen], {name: values[chosen] for name, values in self.right.items()})


@dataclass(frozen=True)
class _Method:
    """A contender's answers at the common places, one for each seed."""

    contender: Contender
    answers: tuple[_Answers, ...]

    def right(self, measure: str, seeds: Sequence[int] | None = None) -> Values:
        """Mean over seeds (by index; all if not given) of each answer's being right; in [0, 1]."""
        chosen = range(len(self.answers)) if seeds is None else seeds
        found: Values = np.mean([self.answers[index].right[measure] for index in chosen], axis=0)
        return found


def compare_contenders(
    contenders: Sequence[Contender], baseline: str | None = None, measure: str = "exact", seed: int = 0
) -> dict[str, Any]:
    """All figures of a comparison as plain JSON values; the first contender is the baseline if none is named.

    measure: "exact" or "normalised". Raises SettingsError for an unknown baseline or measure, ArtifactError where no
    answer is common to all.
    """
    names = [contender.name for contender in contenders]
    baseline = baseline or names[0]
    if baseline not in names:
        raise SettingsError(f"baseline={baseline!r}: there is no such name; there are {', '.join(names)}")
    if measure not in MEASURES:
        raise SettingsError(f"measure={measure!r}: expected one of {', '.join(MEASURES)}")
    methods, n_left_out = _common_answers(contenders)
    by_name = dict(zip(names, methods, strict=True))
    figures = {name: _figures(method, measure, seed) for name, method in by_name.items()}
    for name, method in by_name.items():
        if name != baseline:
            figures[name]["against_baseline"] = _difference(method, by_name[baseline], measure, seed)
    _add_speedups(figures, baseline)
    answers = methods[0].answers[0]
    return {
        "schema": 1,
        "measure": measure,
        "baseline": baseline,
        "n_answers": len(answers.places),
        "n_rows": len(np.unique(answers.places // _TURNS_PER_ROW)),
        "n_left_out": n_left_out,
        "test": asdict(contenders[0].folders[0].manifest.input) | {"path": contenders[0].folders[0].manifest.data},
        "methods": figures,
    }


def _common_answers(contenders: Sequence[Contender]) -> tuple[list[_Method], int]:
    """The methods at the places that all evaluations have; how many places were left out."""
    read = [[_Answers.of(folder) for folder in contender.folders] for contender in contenders]
    everything = [answers for group in read for answers in group]
    common = everything[0].places
    for answers in everything[1:]:
        common = np.intersect1d(common, answers.places, assume_unique=True)
    if not len(common):
        raise ArtifactError("the evaluations have no answer in common; see the reasons in their evaluation.json")
    n_places = len(np.unique(np.concatenate([answers.places for answers in everything])))
    methods = [
        _Method(contender, tuple(answers.at(common) for answers in group))
        for contender, group in zip(contenders, read, strict=True)
    ]
    return methods, n_places - len(common)


def _figures(method: _Method, measure: str, seed: int) -> dict[str, Any]:
    answers = method.answers[0]
    groups = _groups(answers, method.right(measure))
    over_seeds = [_mean_over_sources(one, measure) for one in method.answers]
    return {
        "folders": [str(folder.path) for folder in method.contender.folders],
        "seeds": method.contender.seeds,
        "mean_over_sources": asdict(mean_of_shares(list(groups.values()), seed)),
        "pooled": asdict(mean_of_shares([_by_row(answers.places, method.right(measure))], seed)),
        "sources": {name: asdict(mean_of_shares([group], seed)) for name, group in groups.items()},
        "over_seeds": {"values": over_seeds, "sd": _deviation(over_seeds)},
        "seconds": seconds_spent(method.contender),
    }


def _difference(method: _Method, base: _Method, measure: str, seed: int) -> dict[str, Any]:
    """Method less baseline, on the same answers (and of paired seeds alone, where seeds can be paired)."""
    pairs = _pair_seeds(method, base)
    mine = method.right(measure, [pair[0] for pair in pairs] or None)
    theirs = base.right(measure, [pair[1] for pair in pairs] or None)
    answers = method.answers[0]
    groups = _groups(answers, mine - theirs)
    row_differences, _ = _by_row(answers.places, mine - theirs)
    n_better, n_worse = int((row_differences > 1e-12).sum()), int((row_differences < -1e-12).sum())
    by_seed = [
        _mean_over_sources(method.answers[own], measure) - _mean_over_sources(base.answers[other], measure)
        for own, other in pairs
    ]
    return {
        "mean_over_sources": asdict(mean_of_shares(list(groups.values()), seed)),
        "pooled": asdict(mean_of_shares([_by_row(answers.places, mine - theirs)], seed)),
        "sources": {name: asdict(mean_of_shares([group], seed)) for name, group in groups.items()},
        "rows_better": n_better,
        "rows_worse": n_worse,
        "p": sign_test(n_better, n_worse),
        "paired_seeds": len(pairs),
        "by_seed": {"values": by_seed, "sd": _deviation(by_seed)},
    }


def _pair_seeds(method: _Method, base: _Method) -> list[tuple[int, int]]:
    """Places of evaluations of the same seed in both; by their order if seeds aren't known and the counts agree."""
    mine, theirs = method.contender.seeds, base.contender.seeds
    if mine is not None and theirs is not None:
        return [(mine.index(seed), theirs.index(seed)) for seed in mine if seed in theirs]
    n_mine, n_theirs = len(method.answers), len(base.answers)
    return [(index, index) for index in range(n_mine)] if n_mine == n_theirs else []


def _groups(answers: _Answers, right: Values) -> dict[str, tuple[Values, Values]]:
    """By source, the sums of each row."""
    masks = {name: answers.sources == name for name in sorted(set(answers.sources.tolist()))}
    return {name: _by_row(answers.places[mask], right[mask]) for name, mask in masks.items()}


def _by_row(places: NDArray[np.int64], values: Values) -> tuple[Values, Values]:
    """Sums of the values of each row, and how many answers it has."""
    return row_sums(places // _TURNS_PER_ROW, values)


def _mean_over_sources(answers: _Answers, measure: str) -> float:
    groups = _groups(answers, answers.right[measure])
    return float(np.mean([hits.sum() / n.sum() for hits, n in groups.values()]))


def _deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _add_speedups(figures: Mapping[str, dict[str, Any]], baseline: str) -> None:
    base = figures[baseline]["seconds"]["total_s"]
    for one in figures.values():
        total = one["seconds"]["total_s"]
        one["seconds"]["speedup"] = base / total if base is not None and total else None
