"""One report on a run and a selection: what the score goes along with, what it does to the data, what it costs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.auditing.correlations import by_stratum, trait_correlations
from delta_attnmask.auditing.costs import break_even
from delta_attnmask.auditing.mixes import mix_changes
from delta_attnmask.auditing.overlaps import by_chance, with_columns, with_run, with_settings
from delta_attnmask.errors import ArtifactError
from delta_attnmask.selecting.auto import Calibrated, read_calibrated
from delta_attnmask.selecting.clusters import COLUMN as CLUSTER
from delta_attnmask.selecting.clusters import with_clusters
from delta_attnmask.selecting.duplicates import without_duplicates
from delta_attnmask.selecting.embeddings import read_embeddings
from delta_attnmask.selecting.mix import QUOTAS
from delta_attnmask.selecting.rules import Candidates
from delta_attnmask.selecting.select import find_candidates
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.statistics import rounded, share_between

_POOL_DEFECTS = (0.1, 0.2, 0.4)


def audit_run(
    run: RunFolder,
    selection: Selection,
    *,
    others: dict[str, RunFolder] | None = None,
    train_rate: float | None = None,
    epochs: float = 1.0,
) -> dict[str, Any]:
    """The report as plain JSON values.

    others: further runs of the same data by name (another seed, dtype or model), to compare with.
    train_rate: rows that training gets through in a second.
    """
    scores = run.read_scores(encoded=True)
    candidates = candidates_of(selection, run, scores)
    table = scores if candidates.positions is None else scores.take(candidates.positions)
    sources = strata_of(table, ["source"])
    names = table["source"].take(sources.firsts).to_pylist()
    kept = table["row"].to_numpy().searchsorted(selection.rows)
    calibrated = read_calibrated(run.path)
    return {
        "column": selection.column,
        "rule": selection.rule,
        "options": selection.options,
        "n_rows": len(scores),
        "n_candidates": len(table),
        "n_kept": len(selection),
        "correlations": trait_correlations(candidates.values, table),
        "between_sources": rounded(share_between(candidates.values, sources.codes)),
        "sources": by_stratum(candidates.values, sources, names),
        "mix": mix_changes(table, kept),
        "overlap": {
            "random": by_chance(candidates, selection),
            "columns": with_columns(candidates, selection),
            "settings": with_settings(candidates, sweep, selection) if (sweep := run.read_side("sweep")) else {},
            "runs": _with_runs(candidates, selection, others or {}, run),
        },
        "defects": expected_defects(calibrated, selection, run.manifest.settings),
        "costs": _costs(run, calibrated, train_rate, epochs),
        "warnings": list(calibrated.warnings) if calibrated else [],
    }


def candidates_of(selection: Selection, run: RunFolder, scores: pa.Table) -> Candidates:
    """What the selection chose from."""
    candidates = find_candidates(scores, selection.column, partial(read_embeddings, run))
    if (min_cosine := selection.details.get("drop_duplicates")) is not None:
        candidates = without_duplicates(candidates, min_cosine)
    if CLUSTER in selection.options.get("columns", ()):
        candidates = with_clusters(candidates, selection.details["n_clusters"])
    return candidates


def expected_defects(
    calibrated: Calibrated | None, selection: Selection, settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What share of the kept rows is defective for some shares in the pool, if its defects are like the planted ones.

    From the planted share that the selection's quota keeps on the calibration's sample; None where it isn't known.
    """
    columns = tuple(selection.options.get("columns", ()))
    quota = next((name for name, names in QUOTAS.items() if names == columns), None)
    ratio = calibrated.ratios_for(selection.column, settings).get(quota or "") if calibrated else None
    if ratio is None:
        return None
    return {
        "quota": quota,
        "planted_ratio": ratio,
        "expected": {f"{share:.0%}": round(min(1.0, share * ratio), 4) for share in _POOL_DEFECTS},
    }


def _with_runs(
    candidates: Candidates, selection: Selection, others: dict[str, RunFolder], run: RunFolder
) -> dict[str, dict[str, Any] | None]:
    found = {}
    for name, other in others.items():
        if other.manifest.input != run.manifest.input or other.manifest.n_rows != run.manifest.n_rows:
            raise ArtifactError(f"{other.path} was made of other data than {run.path}; they can't be compared")
        found[name] = with_run(candidates, other.read_scores(encoded=True), selection)
    return found


def _costs(
    run: RunFolder, calibrated: Calibrated | None, train_rate: float | None, epochs: float
) -> dict[str, Any] | None:
    pace = run.pace
    if not pace.n_rows or not pace.seconds:
        return None
    per_row, calibration_s = pace.seconds / pace.n_rows, calibrated.seconds if calibrated else 0.0
    return {
        "rows_per_s": round(1 / per_row, 2),
        "scoring_s": round(per_row * run.manifest.n_rows, 1),
        "calibration_s": calibration_s,
        "train_rate": train_rate,
        "epochs": epochs,
        "budgets": break_even(
            run.manifest.n_rows, per_row, fixed_s=calibration_s, train_rate=train_rate, epochs=epochs
        ),
    }
