"""How much of a selection another score would have kept: rivals, derived columns, other settings, other runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.auditing.correlations import spearman
from delta_attnmask.derived import needed_columns
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.columns import rankable_columns, ranking_values
from delta_attnmask.selecting.rules import Rule, Values
from delta_attnmask.selecting.select import find_candidates, make_rule
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Selection

# Traits of the rows and parts of scores; nobody ranks by them.
_NO_SCORES = {"row", "n_turns", "n_images", "n_tokens", "n_image_tokens", "n_answer_tokens", "masked_loss"}


def with_columns(scores: pa.Table, selection: Selection) -> dict[str, dict[str, Any]]:
    """Every other column of the run that could rank its rows, under the same rule and budget."""
    names = [name for name in rankable_columns(scores.schema) if name not in _NO_SCORES | {selection.column}]
    return {name: overlap for name in names if (overlap := with_values(scores, selection, scores, name)) is not None}


def with_settings(scores: pa.Table, sweep: pa.Table, selection: Selection) -> dict[str, dict[str, Any]]:
    """Every setting of the run's sweep, in the column's own form."""
    if not {"delta", "masked_loss"} & stored(selection.column, scores.schema):
        return {}
    found = {}
    for name, rows, masked_loss, delta in _settings(sweep):
        other = _replace(_replace(scores, "masked_loss", rows, masked_loss), "delta", rows, delta)
        if (overlap := with_values(scores, selection, other, selection.column)) is not None:
            found[name] = overlap
    return found


def with_values(scores: pa.Table, selection: Selection, others: pa.Table, column: str) -> dict[str, Any] | None:
    """The share of the kept rows that `column` of `others` keeps too, and the rank correlation of the two scores.

    None where the other one has too few rows to fill the budget.
    """
    try:
        kept = _keep(others, column, selection)
    except SettingsError:
        return None
    return {
        "overlap": round(len(np.intersect1d(kept, selection.rows)) / len(selection), 4),
        "spearman": spearman(_values(scores, selection.column), _values(others, column)),
    }


def by_chance(scores: pa.Table, selection: Selection) -> float:
    """The overlap to be expected of random rows under the same quotas."""
    candidates = find_candidates(scores, selection.column)
    rows = scores["row"].to_numpy() if candidates.positions is None else scores["row"].to_numpy()[candidates.positions]
    strata = strata_of(scores, selection.options.get("columns", ()))
    strata = strata if candidates.positions is None else strata.take(candidates.positions)
    budgets = np.bincount(strata.codes[rows.searchsorted(selection.rows)], minlength=strata.n)
    return round(float((budgets**2 / strata.sizes).sum() / len(selection)), 4)


def stored(column: str, schema: pa.Schema) -> set[str]:
    """The stored columns that a column is made of."""
    return {column} if column in schema.names else needed_columns(column)


def _keep(scores: pa.Table, column: str, selection: Selection) -> NDArray[np.int64]:
    candidates = find_candidates(scores, column)
    if len(candidates) < len(selection):
        raise SettingsError(f"{column}: too few candidates")
    rule: Rule = make_rule(selection.rule, **selection.options)
    kept = rule(candidates, len(selection)).positions
    rows: NDArray[np.int64] = scores["row"].to_numpy()
    return rows[kept if candidates.positions is None else candidates.positions[kept]]


def _values(scores: pa.Table, column: str) -> Values:
    return np.where(pc.equal(scores["status"], "ok").to_numpy(), ranking_values(scores, column), np.nan)


def _settings(sweep: pa.Table) -> Iterator[tuple[str, Values, Values, Values]]:
    """Each setting's name with rows, masked losses and deltas; only what differs between settings is named."""
    fields = [name for name in sweep.column_names if name not in {"row", "masked_loss", "delta"}]
    codes = strata_of(sweep, fields).codes
    firsts = {int(code): int(np.argmax(codes == code)) for code in np.unique(codes)}
    changing = [name for name in fields if pc.count_distinct(sweep[name]).as_py() > 1] or fields
    columns = [sweep[name].to_numpy() for name in ("row", "masked_loss", "delta")]
    for code, first in firsts.items():
        name = ", ".join(f"{field} {sweep[field][first].as_py()}" for field in changing)
        is_own = codes == code
        yield name, *(column[is_own] for column in columns)


def _replace(scores: pa.Table, column: str, rows: Values, values: Values) -> pa.Table:
    """The scores with other values in a column; rows without one have none."""
    changed = np.full(len(scores), np.nan)
    changed[scores["row"].to_numpy().searchsorted(rows)] = values
    return scores.set_column(scores.column_names.index(column), column, pa.array(changed))
