"""One report on a run and a selection: what the score correlates with, what it does to the data, what it costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from delta_attnmask.auditing.effects import describe_sources, mix_changes, trait_correlations
from delta_attnmask.auditing.overlaps import overlaps
from delta_attnmask.errors import ArtifactError
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.quotas import QUOTAS
from delta_attnmask.selecting.run_selection import candidates_of, read_background
from delta_attnmask.selecting.selector import Background
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.statistics import rounded, share_between

_POOL_DEFECTS = (0.1, 0.2, 0.4)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the rows that are kept


def audit_run(
    run: RunFolder,
    selection: Selection,
    *,
    others: Mapping[str, RunFolder] | None = None,
    train_rate: float | None = None,
    epochs: float = 1.0,
) -> dict[str, Any]:
    """The report as plain JSON values.

    others: further runs of the same data by name (another seed, dtype or model), to compare with; ArtifactError if one
    is of other data. train_rate: rows that training gets through in a second.
    """
    for other in (others or {}).values():
        if other.manifest.input != run.manifest.input or other.manifest.n_rows != run.manifest.n_rows:
            raise ArtifactError(f"{other.path} was made of other data than {run.path}; they can't be compared")
    scores = run.read_scores(encoded=True)
    candidates = candidates_of(selection, run, scores)
    sources = strata_of(candidates.table, ["source"])
    background = read_background(run)
    costs = None
    if run.pace.n_rows and run.pace.seconds:
        per_row = run.pace.seconds / run.pace.n_rows
        costs = break_even(run.manifest.n_rows, per_row, background.calibration_s, train_rate, epochs)
    return {
        "column": selection.column,
        "rule": selection.rule,
        "options": selection.options,
        "n_rows": len(scores),
        "n_candidates": len(candidates),
        "n_kept": len(selection),
        "correlations": trait_correlations(candidates.values, candidates.table),
        "between_sources": rounded(share_between(candidates.values, sources.codes)),
        "sources": describe_sources(candidates, sources),
        "mix": mix_changes(candidates.table, np.searchsorted(candidates.indices, selection.indices)),
        "overlap": overlaps(candidates, selection, run.read_side("sweep"), others or {}),
        "defects": expected_defects(background, selection),
        "costs": costs,
        "warnings": list(background.warnings.get(selection.column, ())),
        **background.verdicts.get(selection.column, {}),
    }


def expected_defects(background: Background, selection: Selection) -> dict[str, Any] | None:
    """What share of the kept rows is defective for some shares in the pool, if its defects are like the planted ones.

    From the planted share that the selection's quota keeps on the calibration's sample; None where it isn't known.
    """
    quota = next((name for name, columns in QUOTAS.items() if columns == selection.quota_by), None)
    ratio = background.planted_ratio.get(selection.column, {}).get(quota or "")
    if ratio is None:
        return None
    return {
        "quota": quota,
        "planted_ratio": ratio,
        "expected": {f"{share:.0%}": round(min(1.0, share * ratio), 4) for share in _POOL_DEFECTS},
    }


def break_even(
    n_rows: int, seconds_per_row: float, calibration_s: float, train_rate: float | None, epochs: float
) -> dict[str, Any]:
    """Whether scoring pays, as plain JSON values: the seconds that it takes, and for some shares what they save.

    train_rate: rows that training gets through in a second; without it only `pays_below` is given: scoring pays where
        training is slower than that many rows a second.
    """
    spent_s = calibration_s + n_rows * seconds_per_row
    budgets = []
    for share in _SHARES:
        n_kept = round(share * n_rows)
        line = {"keep": share, "n_kept": n_kept, "pays_below": round((n_rows - n_kept) * epochs / spent_s, 3)}
        if train_rate:
            all_s, kept_s = n_rows * epochs / train_rate, n_kept * epochs / train_rate
            line |= {"training_all_s": round(all_s, 1), "training_kept_s": round(kept_s, 1)}
            line["saved_s"] = round(all_s - kept_s - spent_s, 1)
        budgets.append(line)
    return {
        "rows_per_s": round(1 / seconds_per_row, 2),
        "scoring_s": round(seconds_per_row * n_rows, 1),
        "calibration_s": round(calibration_s, 1),
        "train_rate": train_rate,
        "epochs": epochs,
        "budgets": budgets,
    }
