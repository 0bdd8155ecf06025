"""From a run folder and what the user asked for to a selection; nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.auto import Calibrated, choose_columns, read_calibrated
from delta_attnmask.selecting.clusters import COLUMN as CLUSTER
from delta_attnmask.selecting.clusters import default_clusters, with_clusters
from delta_attnmask.selecting.columns import stored_columns
from delta_attnmask.selecting.duplicates import without_duplicates
from delta_attnmask.selecting.embeddings import read_embeddings
from delta_attnmask.selecting.mix import MIX_COLUMNS, chance_distortion, distortion
from delta_attnmask.selecting.rules import Candidates
from delta_attnmask.selecting.select import find_candidates, select_candidates
from delta_attnmask.selecting.strata import candidate_strata
from delta_attnmask.selection import Budget, Selection

RuleName = Literal["auto", "top", "quota", "band", "diverse"]

_BAND_SKIPS = 0.02
_POOL = 2.0
_ALWAYS = ("row", "status", "source", "question", "answer_type")


@dataclass(frozen=True)
class Options:
    """What was asked for; columns is () for auto."""

    rule: RuleName = "auto"
    columns: tuple[str, ...] = ()
    temperature: float = 1.0
    min_per_stratum: int = 0
    skip_top: float = 0.0
    pool: float | None = None
    n_clusters: int | None = None
    drop_duplicates: float | None = None

    @property
    def shapes_strata(self) -> bool:
        return self.temperature != 1 or self.min_per_stratum != 0

    @property
    def columns_to_read(self) -> tuple[str, ...]:
        stored = tuple(column for column in self.columns if column != CLUSTER)
        return stored if self.drop_duplicates is None else (*stored, "key")


@dataclass(frozen=True)
class Plan:
    """A selection with the scores that it was made of, as far as they were read."""

    selection: Selection
    scores: pa.Table


def plan_selection(folder: RunFolder, keep: str, by: str | None = None, options: Options = Options()) -> Plan:
    """Select from a run; by: None for the form that the run was scored for. Nothing is written."""
    budget, calibrated = Budget.parse(keep), read_calibrated(folder.path)
    column = by or str(folder.manifest.settings.get("form", "delta"))
    wanted = [*_ALWAYS, *options.columns_to_read, *sorted(stored_columns(column, folder.schema))]
    scores = folder.read_scores(list(dict.fromkeys(wanted)), encoded=True)
    found = find_candidates(scores, column, partial(read_embeddings, folder))
    n_keep, candidates, prepared = budget.resolve(len(found)), found, dict[str, Any]()
    if options.drop_duplicates is not None:
        candidates = without_duplicates(found, options.drop_duplicates)
        prepared |= {"drop_duplicates": options.drop_duplicates, "n_duplicates": len(found) - len(candidates)}
        _require_enough(len(candidates), n_keep)
    if options.n_clusters is not None and CLUSTER not in options.columns:
        raise SettingsError("clusters: nothing is done with them; add --quota-by cluster")
    if CLUSTER in options.columns:
        n_clusters = options.n_clusters or default_clusters(len(candidates))
        candidates = with_clusters(candidates, n_clusters)
        prepared |= {"n_clusters": n_clusters}
    ratios = calibrated.ratios_for(column, folder.manifest.settings) if calibrated else {}
    selection = _select(candidates, Budget(n_rows=n_keep), column, options, ratios)
    selection = replace(selection, budget=budget, details=selection.details | prepared)
    return Plan(_with_context(selection, candidates, calibrated), scores)


def _require_enough(n_left: int, n_keep: int) -> None:
    if n_left < n_keep:
        raise SettingsError(f"keep: {n_keep} rows, but only {n_left} are left without duplicates; keep fewer of either")


def _select(
    candidates: Candidates, budget: Budget, column: str, options: Options, ratios: Mapping[str, float]
) -> Selection:
    """The selection by the named rule, or by the default one with the choice of its quota in the details."""
    rule, columns, chosen = options.rule, options.columns, {}
    if rule in ("auto", "quota", "diverse") and not columns:
        share = budget.resolve(len(candidates)) / len(candidates)
        found = choose_columns(candidates, share, ratios, needs_quota=rule == "quota" or options.shapes_strata)
        columns, chosen = found.columns, {"quota_choice": found.details}
    if rule == "auto":
        rule = "quota" if columns else "band" if options.skip_top else "top"
    selection = select_candidates(candidates, budget, column=column, rule=rule, **_told(rule, columns, options))
    return replace(selection, details=selection.details | chosen)


def _told(rule: RuleName, columns: tuple[str, ...], options: Options) -> dict[str, Any]:
    """What the rule is told; SettingsError for options that it would silently drop."""
    if options.pool is not None and rule != "diverse":
        raise SettingsError(f"rule={rule!r} chooses from all rows; use --rule diverse with --pool")
    if rule == "quota":
        return {
            "columns": columns,
            "temperature": options.temperature,
            "min_per_stratum": options.min_per_stratum,
            "skip_top": options.skip_top,
        }
    if options.shapes_strata or (columns and rule != "diverse"):
        raise SettingsError(
            f"rule={rule!r} can't follow --quota-by, --temperature or --min-per-stratum; use --rule quota"
        )
    if rule == "band":
        return {"skip_top": options.skip_top or _BAND_SKIPS}
    if options.skip_top:
        raise SettingsError(f"rule={rule!r} leaves nothing out at the top; use --rule band or quota with --skip-top")
    return {"columns": columns, "pool": options.pool or _POOL} if rule == "diverse" else {}


def _with_context(selection: Selection, candidates: Candidates, calibrated: Calibrated | None) -> Selection:
    """The selection with what it does to the mix, and what the calibration warned of."""
    mix = candidate_strata(candidates, MIX_COLUMNS)
    rows = candidates.table["row"].to_numpy()[candidates.in_table(np.arange(len(candidates)))]
    found = {
        "distortion": round(distortion(mix, rows.searchsorted(selection.rows)), 4),
        "distortion_by_chance": round(chance_distortion(mix, len(selection)), 4),
        "warnings": list(calibrated.warnings) if calibrated else [],
    }
    return replace(selection, details=selection.details | found)
