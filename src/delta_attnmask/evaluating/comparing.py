"""Several evaluations of one test set side by side, on the answers that all of them gave. No torch here.

Differences are paired: the same rows, and of several seeds the same seeds. Their intervals draw rows (of each source,
for the mean over sources); the p-value is an exact sign test over the rows on which two methods differ (with one answer
a row and one seed that is McNemar's test). The spread over seeds is reported beside it: what rows say and what seeds
say are two things.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.evaluating.summarising import MEASURES, own_lines, row_sums, to_numbers
from delta_attnmask.runs import RunFolder
from delta_attnmask.statistics import Values, mean_of_shares, sign_test

_TURNS_PER_ROW = 1 << 20  # makes one number of row and turn


def compare_evaluations(
    runs: Iterable[tuple[str, Path]],
    scoring: Mapping[str, Path] | None = None,
    baseline: str | None = None,
    measure: str = "exact",
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a comparison as plain JSON values.

    runs: evaluation folders with the names of their methods; those of one name are seeds of one method.
    scoring: by name, the run whose scores the method's data came from. baseline: a name; the first if not given.
    measure: "exact" or "normalised".
    Raises ArtifactError where a folder is no complete evaluation, where two are of different test sets or no answer is
    common to all, SettingsError for fewer than two evaluations or an unknown name or measure.
    """
    if measure not in MEASURES:
        raise SettingsError(f"measure={measure!r}: expected one of {', '.join(MEASURES)}")
    folders: dict[str, list[EvaluationFolder]] = {}
    for name, path in runs:
        folders.setdefault(name, []).append(EvaluationFolder.open(path))
    everyone = [folder for group in folders.values() for folder in group]
    _require_same_test(everyone)
    scored = {name: RunFolder.open(path) for name, path in (scoring or {}).items()}
    base_name = baseline or next(iter(folders))
    for what, name in [("baseline", base_name), *(("scoring", name) for name in scored)]:
        if name not in folders:
            raise SettingsError(f"{what}={name!r}: there is no such name; there are {', '.join(folders)}")
    answers, right = _common_answers(everyone, measure)
    methods = {}
    for name, group in folders.items():
        notes = [_read_object(Path(folder.manifest.model) / "train.json") for folder in group]
        methods[name] = _Method(group, notes, scored.get(name), right[: len(group)])
        right = right[len(group) :]
    figures = {name: _figures(method, answers, seed) for name, method in methods.items()}
    base_s = figures[base_name]["seconds"]["total_s"]
    for name, one in figures.items():
        if name != base_name:
            one["against_baseline"] = _difference(methods[name], methods[base_name], answers, seed)
        total = one["seconds"]["total_s"]
        one["seconds"]["speedup"] = base_s / total if base_s is not None and total else None
    test = everyone[0].manifest
    return {
        "schema": 1,
        "measure": measure,
        "baseline": base_name,
        "n_answers": len(answers.rows),
        "n_rows": len(np.unique(answers.rows)),
        "n_left_out": answers.n_left_out,
        "test": asdict(test.input) | {"path": test.data},
        "methods": figures,
    }


def _require_same_test(folders: Sequence[EvaluationFolder]) -> None:
    if len(folders) < 2:
        raise SettingsError("got fewer than two evaluations; comparing needs at least two")
    first, *others = folders
    for other in others:
        mine, theirs = _asked(first), _asked(other)
        differing = [f"{name}: {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]]
        if differing:
            raise ArtifactError(
                f"{first.path} and {other.path} answer different questions, so they can't be compared "
                f"({'; '.join(differing)}); evaluate both on the same file with the same options"
            )


def _asked(folder: EvaluationFolder) -> dict[str, Any]:
    manifest = folder.manifest
    return {
        "test file (SHA-256)": manifest.input.sha256[:16],
        "rows": manifest.n_rows,
        # One taken from the data's longest answer may differ, since tokenizers do; a given one cuts answers off.
        "max_new_tokens_given": manifest.settings.get("max_new_tokens_given"),
    }


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is no such file, as beside a model from the hub."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: expected a JSON object")
    return found


@dataclass(frozen=True)
class _Answers:
    """The answers that all evaluations gave: the row and source of each. n_left_out: those that only some gave."""

    rows: NDArray[np.int64]
    sources: NDArray[np.str_]
    n_left_out: int

    def by_source(self, values: Values) -> dict[str, tuple[Values, Values]]:
        """By source, the sums of each row's values, and its number of answers."""
        masks = {name: self.sources == name for name in sorted(set(self.sources.tolist()))}
        return {name: row_sums(self.rows[mask], values[mask]) for name, mask in masks.items()}

    def estimates(self, values: Values, seed: int) -> dict[str, Any]:
        """The means of some values of the answers, with their intervals."""
        groups = self.by_source(values)
        return {
            "mean_over_sources": asdict(mean_of_shares(list(groups.values()), seed)),
            "pooled": asdict(mean_of_shares([row_sums(self.rows, values)], seed)),
            "sources": {name: asdict(mean_of_shares([group], seed)) for name, group in groups.items()},
        }

    def spread(self, by_seed: Values) -> dict[str, Any]:
        """The mean over sources of each seed, and their standard deviation; None of fewer than two."""
        groups = [self.by_source(values).values() for values in by_seed]
        means = [float(np.mean([sums.sum() / n.sum() for sums, n in group])) for group in groups]
        return {"values": means, "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None}


def _common_answers(folders: Sequence[EvaluationFolder], measure: str) -> tuple[_Answers, Values]:
    """The answers that all folders have, and the measure of each, `[folder, answer]`."""
    tables = [own_lines(folder.read()) for folder in folders]
    places = [table["row"].to_numpy() * _TURNS_PER_ROW + table["turn"].to_numpy() for table in tables]
    common = reduce(np.intersect1d, places)
    if not len(common):
        raise ArtifactError("the evaluations have no answer in common; see the reasons in their evaluation.json")
    chosen = [np.intersect1d(common, place, return_indices=True)[2] for place in places]
    values = np.stack([to_numbers(table, measure)[at] for table, at in zip(tables, chosen, strict=True)])
    sources = np.array(tables[0]["source"].to_pylist(), dtype=np.str_)[chosen[0]]
    n_left_out = len(np.unique(np.concatenate(places))) - len(common)
    return _Answers(common // _TURNS_PER_ROW, sources, n_left_out), values


@dataclass(frozen=True)
class _Method:
    """One method: its evaluations, what training wrote beside each model, and the scoring run that it needed.

    right: the measure of each answer, `[seed, answer]`.
    """

    folders: Sequence[EvaluationFolder]
    notes: Sequence[Mapping[str, Any]]
    scoring: RunFolder | None
    right: Values

    @property
    def seeds(self) -> list[int]:
        """The training seed of each model; none where one isn't known or two are the same."""
        seeds = [note["seed"] for note in self.notes if isinstance(note.get("seed"), int)]
        return seeds if len(set(seeds)) == len(self.notes) else []

    def seconds(self) -> dict[str, float | None]:
        """Wall-clock seconds: of training (mean over seeds), of scoring with its calibration, and of both.

        None where nobody knows: a model without `train.json`, or a scoring run whose pace wasn't kept.
        """
        known = [float(note["seconds"]) for note in self.notes if isinstance(note.get("seconds"), int | float)]
        training = sum(known) / len(known) if len(known) == len(self.notes) else None
        scoring: float | None = 0.0
        if self.scoring is not None:
            pace = self.scoring.pace
            calibration = float(_read_object(self.scoring.path / "calibration.json").get("seconds", 0))
            n_rows = self.scoring.manifest.n_rows
            scoring = pace.seconds * n_rows / pace.n_rows + calibration if pace.n_rows else None
        total = None if training is None or scoring is None else training + scoring
        return {"training_s": training, "scoring_s": scoring, "total_s": total}


def _figures(method: _Method, answers: _Answers, seed: int) -> dict[str, Any]:
    return {
        "folders": [str(folder.path) for folder in method.folders],
        "seeds": method.seeds,
        **answers.estimates(method.right.mean(0), seed),
        "over_seeds": answers.spread(method.right),
        "seconds": method.seconds(),
    }


def _difference(method: _Method, base: _Method, answers: _Answers, seed: int) -> dict[str, Any]:
    """Method less baseline, on the same answers (and of the seeds alone that both have, where they share any)."""
    right, base_right = method.right, base.right
    shared = [number for number in method.seeds if number in base.seeds]
    if shared:
        right, base_right = (one.right[[one.seeds.index(number) for number in shared]] for one in (method, base))
    difference = right.mean(0) - base_right.mean(0)
    by_row, _ = row_sums(answers.rows, difference)
    n_better, n_worse = int((by_row > 1e-12).sum()), int((by_row < -1e-12).sum())
    return {
        **answers.estimates(difference, seed),
        "rows_better": n_better,
        "rows_worse": n_worse,
        "p": sign_test(n_better, n_worse),
        "paired_seeds": len(shared),
        "by_seed": answers.spread(right - base_right if shared else right[:0]),
    }
