"""Several evaluations of one test set side by side, on the answers that all of them gave. No torch here.

Differences are paired: the same answers, and of several seeds the same seeds. Their intervals draw images with all that
is asked about them (of each source, for the mean over sources); the p-value is an exact sign test over the images on
which two methods differ (with one answer an image and one seed that is McNemar's test). A row without an image counts
by itself. The spread over seeds is reported beside it: rows and seeds answer different questions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.evaluating.summarising import COMPARED, by_source, own_lines, share, sums_by_image, to_numbers
from delta_attnmask.runs import RunFolder
from delta_attnmask.statistics import Values, sign_test
from delta_attnmask.storage import read_object

_PLACE, _ABOUT = ["row", "turn"], ["source", "image"]


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
    measure: "exact", "normalised", or "loss": of the references, nats per token, of which less is better.
    Raises ArtifactError where a folder is no complete evaluation, where two are of different test sets or no answer is
    common to all, SettingsError for fewer than two evaluations or an unknown name or measure.
    """
    if measure not in COMPARED:
        raise SettingsError(f"measure={measure!r}: expected one of {', '.join(COMPARED)}")
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
    answers, n_left_out = _common_answers(everyone, measure)
    values = iter([to_numbers(answers, str(index)) for index in range(len(everyone))])
    methods = {}
    for name, group in folders.items():
        notes = [read_object(Path(folder.manifest.model) / "train.json") for folder in group]
        methods[name] = _Method(group, notes, scored.get(name), np.stack([next(values) for _ in group]))
    figures = {name: _figures(method, answers, seed) for name, method in methods.items()}
    base_s = figures[base_name]["seconds"]["total_s"]
    for name, one in figures.items():
        if name != base_name:
            one["against_baseline"] = _difference(
                methods[name], methods[base_name], answers, seed, is_loss=measure == "loss"
            )
        total = one["seconds"]["total_s"]
        one["seconds"]["speedup"] = base_s / total if base_s is not None and total else None
    test = everyone[0].manifest
    return {
        "schema": 1,
        "measure": measure,
        "baseline": base_name,
        "n_answers": len(answers),
        "n_rows": pc.count_distinct(answers["row"]).as_py(),
        "n_left_out": n_left_out,
        "test": asdict(test.input) | {"path": test.data},
        "methods": figures,
    }


def _require_same_test(folders: Sequence[EvaluationFolder]) -> None:
    if len(folders) < 2:
        raise SettingsError("got fewer than two evaluations; comparing needs at least two")
    asked = [
        {
            "test file (SHA-256)": folder.manifest.input.sha256[:16],
            "rows": folder.manifest.n_rows,
            # One taken from the data's longest answer may differ, since tokenizers do; a given one cuts answers off.
            "max_new_tokens_given": folder.manifest.settings.get("max_new_tokens_given"),
        }
        for folder in folders
    ]
    for folder, theirs in zip(folders, asked, strict=True):
        if differing := [
            f"{name}: {mine} and {theirs[name]}" for name, mine in asked[0].items() if mine != theirs[name]
        ]:
            raise ArtifactError(
                f"{folders[0].path} and {folder.path} answer different questions, so they can't be compared "
                f"({'; '.join(differing)}); evaluate both on the same file with the same options"
            )


def _common_answers(folders: Sequence[EvaluationFolder], measure: str) -> tuple[pa.Table, int]:
    """The answers that all folders have, and how many only some have.

    Columns: row, turn, source, image, and each folder's measure under the folder's number.
    """
    tables = [own_lines(folder.read()).select([*_PLACE, *_ABOUT, measure]) for folder in folders]
    tables = [table.rename_columns([*_PLACE, *_ABOUT, str(idx)]) for idx, table in enumerate(tables)]
    common = reduce(lambda one, other: one.join(other.drop_columns(_ABOUT), _PLACE, join_type="inner"), tables)
    if not len(common):
        raise ArtifactError("the evaluations have no answer in common; see the reasons in their evaluation.json")
    every = pa.concat_tables(table.select(_PLACE) for table in tables).group_by(_PLACE).aggregate([])
    return common.sort_by([("row", "ascending"), ("turn", "ascending")]), len(every) - len(common)


def _estimates(answers: pa.Table, seed: int) -> dict[str, Any]:
    """The means of the answers' `value`, with their intervals."""
    groups = by_source(answers)
    return {
        "mean_over_sources": share(groups.values(), "value", seed),
        "pooled": share([answers], "value", seed),
        "sources": {name: share([group], "value", seed) for name, group in groups.items()},
    }


def _spread(answers: pa.Table, by_seed: Values) -> dict[str, Any]:
    """The mean over sources of each seed, and their standard deviation; None of fewer than two."""
    groups = [by_source(_with_values(answers, values)).values() for values in by_seed]
    means = [float(np.mean([to_numbers(lines, "value").mean() for lines in group])) for group in groups]
    return {"values": means, "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None}


def _with_values(answers: pa.Table, values: Values) -> pa.Table:
    return answers.select(["row", *_ABOUT]).append_column("value", pa.array(values))


@dataclass(frozen=True)
class _Method:
    """One method: its evaluations, what training wrote beside each model, and the scoring run that it needed.

    values: the measure of each answer, `[seed, answer]`.
    """

    folders: Sequence[EvaluationFolder]
    notes: Sequence[Mapping[str, Any]]
    scoring: RunFolder | None
    values: Values

    @property
    def seeds(self) -> list[int]:
        """The training seed of each model; none where one isn't known or two are the same."""
        seeds = [note["seed"] for note in self.notes if isinstance(note.get("seed"), int)]
        return seeds if len(set(seeds)) == len(self.notes) else []

    def seconds(self) -> dict[str, float | None]:
        """Wall-clock seconds: of training (mean over seeds), of scoring with its calibration, and of both.

        None if that isn't known: a model without `train.json`, or a scoring run whose pace wasn't kept.
        """
        known = [float(note["seconds"]) for note in self.notes if isinstance(note.get("seconds"), int | float)]
        training = sum(known) / len(known) if len(known) == len(self.notes) else None
        scoring: float | None = 0.0
        if self.scoring is not None:
            pace = self.scoring.pace
            calibration = float(read_object(self.scoring.path / "calibration.json").get("seconds", 0))
            n_rows = self.scoring.manifest.n_rows
            scoring = pace.seconds * n_rows / pace.n_rows + calibration if pace.n_rows else None
        total = None if training is None or scoring is None else training + scoring
        return {"training_s": training, "scoring_s": scoring, "total_s": total}


def _figures(method: _Method, answers: pa.Table, seed: int) -> dict[str, Any]:
    return {
        "folders": [str(folder.path) for folder in method.folders],
        "seeds": method.seeds,
        **_estimates(_with_values(answers, method.values.mean(0)), seed),
        "over_seeds": _spread(answers, method.values),
        "seconds": method.seconds(),
    }


def _difference(method: _Method, base: _Method, answers: pa.Table, seed: int, *, is_loss: bool) -> dict[str, Any]:
    """Method less baseline, on the same answers (and of the seeds alone that both have, where they share any)."""
    values, base_values = method.values, base.values
    shared = [number for number in method.seeds if number in base.seeds]
    if shared:
        values, base_values = (one.values[[one.seeds.index(number) for number in shared]] for one in (method, base))
    difference = _with_values(answers, values.mean(0) - base_values.mean(0))
    gains = sums_by_image(difference, "value")[0] * (-1 if is_loss else 1)
    n_better, n_worse = int((gains > 1e-12).sum()), int((gains < -1e-12).sum())
    return {
        **_estimates(difference, seed),
        "images_better": n_better,
        "images_worse": n_worse,
        "p": sign_test(n_better, n_worse),
        "paired_seeds": len(shared),
        "by_seed": _spread(answers, values - base_values if shared else values[:0]),
    }
