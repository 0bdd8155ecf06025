"""A table of scores and a budget to a selection: one path for the command line and for Python. Nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pyarrow as pa

from delta_attnmask.calibration import Calibration, judge_calibration
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Candidates, Embed, Indices, find_candidates, is_scored, row_indices
from delta_attnmask.selecting.quotas import MIX_COLUMNS, QUOTAS, chance_distortion, choose_columns, distortion
from delta_attnmask.selecting.rules import make_rule, option_names, read_columns
from delta_attnmask.selecting.similarity import (
    CLUSTER,
    default_clusters,
    with_clusters,
    without_copies,
    without_near_duplicates,
)
from delta_attnmask.selecting.strata import encode, strata_of
from delta_attnmask.selection import Budget, Selection
from delta_attnmask.settings import read_share

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = ("status", "source", "question", "answer_type", "key")  # of score tables, as far as selecting needs them

_SHAPING = {"temperature", "min_per_stratum"}  # options that mean nothing without strata


@dataclass(frozen=True)
class Background:
    """What is known of scores beside their table; without a run, nothing.

    form: the column that the rows were scored for. embed: gives the embeddings of rows.
    planted_ratio: of the calibrated column, each quota's planted copies kept relative to chance; {} for others.
    passing: by column, the value that a share of its planted copies reaches, by share. warnings, verdicts: by column,
    what its calibration warned of and came to. calibration_s: how long it took.
    """

    form: str | None = None
    embed: Embed | None = None
    planted_ratio: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    calibration_s: float = 0.0
    passing: Mapping[str, Mapping[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any], calibration: Mapping[str, Any] | None, embed: Embed | None) -> Self:
        """From a run's settings and the report of its calibration.

        Ratios and warnings hold only for the score that was calibrated. Raises KeyError,
        TypeError, ValueError or AttributeError for what is no such report.
        """
        form = settings.get("form")
        if calibration is None:
            return cls(form, embed)
        found, seconds = Calibration(calibration), float(calibration.get("seconds", 0))
        if not found.covers(found.form, settings):
            return cls(form, embed, calibration_s=seconds)
        options = calibration.get("quota", {}).get("options", {})
        ratios = {name: float(option["planted_ratio"]) for name, option in options.items() if name in QUOTAS}
        passing = {float(one["copies"]): float(one["above"]) for one in calibration.get("passing", ())}
        return cls(
            form,
            embed,
            {found.form: ratios},
            {found.form: found.warnings},
            {found.form: judge_calibration(found)},
            seconds,
            {found.form: passing},
        )

    def value_reached(self, column: str, copies: float) -> float:
        """The value of a column that a share of the planted copies reaches, linear between those that are known.

        Raises SettingsError where the column wasn't calibrated, or the share is outside of what is known.
        """
        if not (known := self.passing.get(column)):
            raise SettingsError(
                f"copies: {column} wasn't calibrated here, so no planted copies say where to draw a line"
            )
        if not min(known) <= copies <= max(known):
            raise SettingsError(f"copies={copies:g}: expected a share from {min(known):.0%} to {max(known):.0%}")
        return float(np.interp(copies, sorted(known), [known[share] for share in sorted(known)]))


class HasTable(Protocol):
    """Scores in memory. If they have a `background`, it counts."""

    @property
    def table(self) -> pa.Table: ...


def select_rows(
    scores: "pa.Table | pd.DataFrame | HasTable",
    keep: str | float | Budget,
    *,
    by: str | None = None,
    rule: str = "auto",
    quota_by: str | Sequence[str] = "auto",
    clusters: int | None = None,
    drop_duplicates: bool | Indices = False,
    near_duplicates: float | None = None,
    **options: Any,
) -> Selection:
    """Keep the best rows of a table of scores, as the command `select` does.

    scores: a pyarrow table, a pandas data frame, or `Scores`. Any table with a numeric column to rank by will do. Rows
        that failed (the column `status`), and those whose value is missing or infinite, are never kept.
    keep: a share of the rows that can be kept, "20%" or 0.2, or a number of rows, 500.
    by: the column to rank by, stored or derived; higher is kept. None for the run's form, else `score`, else `delta`.
    rule: auto, top, band, quota, trusted, diverse or random; options: what the rule takes, such as temperature=2.
    quota_by: columns whose values jointly share the budget out; auto chooses by a rule that the report states. The
        column `cluster` comes from the embeddings: `clusters` of them, one for 200 rows by default.
    drop_duplicates: leave out rows that say what a better one says: True for rows of the same bytes, or for each input
        row the first that says the same, as `find_copies` gives it. near_duplicates: leave out rows too whose embedding
        has such a cosine, say 0.95, with that of a better one. Shares are of the rows before that.

    Raises SettingsError for an unknown rule, option or column, and if there is nothing to keep.
    """
    table, background = _read(scores, quota_by)
    column = by or background.form or ("score" if "score" in table.column_names else "delta")
    found = find_candidates(table, column, background.embed)
    n_keep = Budget.of(keep).resolve(len(found))
    wanted = None if quota_by == "auto" else read_columns(quota_by)
    distinct, prepared = _drop_duplicates(found, drop_duplicates, near_duplicates)
    candidates, n_clusters = with_columns(distinct, wanted or (), clusters)
    if len(candidates) < n_keep:
        n_left = len(candidates)
        raise SettingsError(f"keep: {n_keep} rows, but only {n_left} are left without duplicates; keep fewer of either")
    options = {name: value for name, value in options.items() if value is not None}
    rule, options, quota_choice = _decide(rule, wanted, options, candidates, background, column)
    made = make_rule(rule, options)
    picks = made.choose(candidates, n_keep)
    kept = candidates.indices[picks.positions]
    mix = strata_of(candidates.table, [name for name in MIX_COLUMNS if name in table.column_names])
    return Selection(
        indices=kept,
        reason=picks.reason,
        rule=rule,
        column=column,
        budget=Budget.of(keep),
        n_candidates=len(candidates),
        options=asdict(made),
        duplicates=np.setdiff1d(found.indices, candidates.indices),
        details={
            "n_rows": len(table),
            **picks.details,
            **prepared,
            **({"n_clusters": n_clusters} if n_clusters else {}),
            **quota_choice,
            "distortion": round(distortion(mix, picks.positions), 4),
            "distortion_by_chance": round(chance_distortion(mix, n_keep), 4),
            "warnings": list(background.warnings.get(column, ())),
            **background.verdicts.get(column, {}),
            "sources": count_sources(table, kept),
        },
    )


def _drop_duplicates(
    found: Candidates, exact: bool | Indices, min_cosine: float | None
) -> tuple[Candidates, dict[str, int]]:
    """The candidates without duplicates, and how many there were, for the report."""
    candidates, done = found, dict[str, int]()
    if exact is not False:
        candidates = without_copies(found, None if exact is True else exact)
        done["n_duplicates"] = len(found) - len(candidates)
    if min_cosine is not None:
        n_before = len(candidates)
        candidates = without_near_duplicates(candidates, min_cosine)
        done["n_near_duplicates"] = n_before - len(candidates)
    return candidates, done


def with_columns(candidates: Candidates, quota_by: Sequence[str], clusters: int | None) -> tuple[Candidates, int]:
    """The candidates, with clusters where a quota needs them, and how many clusters."""
    if CLUSTER in quota_by:
        n_clusters = clusters or default_clusters(len(candidates))
        return with_clusters(candidates, n_clusters), n_clusters
    if clusters is not None:
        raise SettingsError("clusters: nothing is done with them; add the quota by cluster (--quota-by cluster)")
    return candidates, 0


def count_sources(table: pa.Table, kept: Indices) -> dict[str, dict[str, int]]:
    """Kept, left and failed rows of each source, in alphabetical order; {} where the table has no sources."""
    if "source" not in table.column_names:
        return {}
    codes, names = encode(table, "source")
    fate = np.where(np.isin(row_indices(table), kept), 0, np.where(is_scored(table), 1, 2))
    counts = np.bincount(codes * 3 + fate, minlength=3 * len(names)).reshape(-1, 3).tolist()
    by_name = sorted(zip(names, counts, strict=True))
    return {name: dict(zip(("kept", "left", "failed"), fates, strict=True)) for name, fates in by_name}


def _read(scores: "pa.Table | pd.DataFrame | HasTable", quota_by: str | Sequence[str]) -> tuple[pa.Table, Background]:
    """The table, of a data frame only the columns that may be needed (others may hold anything), and its background."""
    if isinstance(scores, pa.Table):
        return scores, Background()
    if isinstance(table := getattr(scores, "table", None), pa.Table):
        return table, getattr(scores, "background", Background())
    frame: Any = scores
    if not hasattr(frame, "dtypes"):
        raise SettingsError(f"scores: expected a table, a data frame or Scores, got {type(frame).__name__}")
    texts = {*TEXT_COLUMNS, *read_columns(quota_by)}
    wanted = [name for name, kind in frame.dtypes.items() if name in texts or kind.kind in "iuf"]
    return pa.Table.from_pandas(frame[wanted], preserve_index=False), Background()


def _decide(
    rule: str,
    quota_by: tuple[str, ...] | None,
    options: dict[str, Any],
    candidates: Candidates,
    background: Background,
    column: str,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The rule with its options where they are left to us; and how a quota was chosen, for the report."""
    needs_quota = rule == "quota" or bool(_SHAPING & options.keys())
    why: dict[str, Any] = {}
    if quota_by is None and (rule == "auto" or "quota_by" in option_names(rule)):
        ratios = background.planted_ratio.get(column, {})
        quota_by, chosen = choose_columns(candidates, ratios, needs_quota=needs_quota)
        why = {"quota_choice": chosen}
    if rule == "auto":
        rule = "quota" if quota_by or needs_quota else "band" if "skip_top" in options else "top"
    if rule == "trusted" and "copies" in options:
        if "above" in options:
            raise SettingsError("above, copies: each draws the line; give one of them")
        copies = read_share("copies", options["copies"])
        options = {name: value for name, value in options.items() if name != "copies"}
        options["above"] = background.value_reached(column, copies)
    if quota_by is not None and (quota_by or "quota_by" in option_names(rule)):
        options = {"quota_by": quota_by, **options}
    return rule, options, why
