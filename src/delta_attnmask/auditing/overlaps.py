"""How much of a selection another score would have kept: rivals, derived columns, other settings, other runs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.columns import rankable_columns, ranking_values, stored_columns
from delta_attnmask.selecting.rules import Candidates, Values
from delta_attnmask.selecting.select import make_rule
from delta_attnmask.selecting.strata import candidate_strata, strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.statistics import rounded, spearman

# Traits of the rows and parts of scores; nobody ranks by them.
_NO_SCORES = {"row", "n_turns", "n_images", "n_tokens", "n_image_tokens", "n_answer_tokens", "masked_loss"}

Overlap = dict[str, Any]


def with_columns(candidates: Candidates, selection: Selection) -> dict[str, Overlap]:
    """Every other column of the run that could rank its rows, under the same rule and budget."""
    table = candidates.table
    names = [name for name in rankable_columns(table.schema) if name not in _NO_SCORES | {selection.column}]
    found = {name: with_values(candidates, ranking_values(table, name), selection) for name in names}
    return {name: overlap for name, overlap in found.items() if overlap is not None}


def with_settings(candidates: Candidates, sweep: pa.Table, selection: Selection) -> dict[str, Overlap]:
    """Every setting of the run's sweep, in the column's own form."""
    table, found = candidates.table, {}
    if not {"delta", "masked_loss"} & stored_columns(selection.column, table.schema):
        return {}
    for name, rows, masked_loss, delta in _settings(sweep):
        changed = _with_column(_with_column(table, "masked_loss", rows, masked_loss), "delta", rows, delta)
        found[name] = with_values(candidates, ranking_values(changed, selection.column), selection)
    return {name: overlap for name, overlap in found.items() if overlap is not None}


def with_run(candidates: Candidates, others: pa.Table, selection: Selection) -> Overlap | None:
    """The same column of another run of the same rows."""
    is_ok = pc.equal(others["status"], "ok").to_numpy()
    return with_values(candidates, np.where(is_ok, ranking_values(others, selection.column), np.nan), selection)


def with_values(candidates: Candidates, values: Values, selection: Selection) -> Overlap | None:
    """The share of the kept rows that other values of the same rows keep too, and the correlation of the ranks.

    values: for each row of the candidates' table. None where too few of them are finite to fill the budget, or the
    rule can't be followed with them.
    """
    own = values[candidates.in_table(np.arange(len(candidates)))]
    has_value = np.flatnonzero(np.isfinite(own))
    if len(has_value) < len(selection):
        return None
    others = replace(candidates.take(has_value), values=own[has_value])
    try:
        kept = make_rule(selection.rule, **selection.options)(others, len(selection)).positions
    except SettingsError:  # such as a minimum per stratum that these rows can't fill
        return None
    rows = candidates.table["row"].to_numpy()[others.in_table(kept)]
    return {
        "overlap": round(len(np.intersect1d(rows, selection.rows)) / len(selection), 4),
        "spearman": rounded(spearman(candidates.values, own)),
    }


def by_chance(candidates: Candidates, selection: Selection) -> float:
    """The overlap to be expected of random rows under the same quotas."""
    rows = candidates.table["row"].to_numpy()[candidates.in_table(np.arange(len(candidates)))]
    strata = candidate_strata(candidates, selection.options.get("columns", ()))
    budgets = np.bincount(strata.codes[rows.searchsorted(selection.rows)], minlength=strata.n)
    return round(float((budgets**2 / strata.sizes).sum() / len(selection)), 4)


def _settings(sweep: pa.Table) -> Iterator[tuple[str, Values, Values, Values]]:
    """Each setting's name with rows, masked losses and deltas; only what differs between settings is named."""
    fields = [name for name in sweep.column_names if name not in {"row", "masked_loss", "delta"}]
    strata = strata_of(sweep, fields)
    changing = [name for name in fields if pc.count_distinct(sweep[name]).as_py() > 1] or fields
    rows, masked_loss, delta = (sweep[name].to_numpy() for name in ("row", "masked_loss", "delta"))
    for code, first in enumerate(strata.firsts.tolist()):
        name = ", ".join(f"{field} {sweep[field][first].as_py()}" for field in changing)
        is_own = strata.codes == code
        yield name, rows[is_own], masked_loss[is_own], delta[is_own]


def _with_column(table: pa.Table, column: str, rows: Values, values: Values) -> pa.Table:
    """The table with other values in a column; rows without one have none."""
    changed = np.full(len(table), np.nan)
    changed[table["row"].to_numpy().searchsorted(rows)] = values
    return table.set_column(table.column_names.index(column), column, pa.array(changed))
