"""How much of a selection another score would have kept: rivals, derived columns, other settings, other runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.errors import SettingsError
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import (
    Candidates,
    is_scored,
    rankable_columns,
    ranking_values,
    stored_columns,
)
from delta_attnmask.selecting.rules import make_rule
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.statistics import Values, rounded, spearman

# Traits of the rows and parts of scores; nobody ranks by them.
_NO_SCORES = {"row", "n_turns", "n_images", "n_tokens", "n_image_tokens", "n_answer_tokens", "masked_loss"}

Overlap = dict[str, Any]


def overlaps(
    candidates: Candidates, selection: Selection, sweep: pa.Table | None, others: Mapping[str, RunFolder]
) -> dict[str, Any]:
    """With random rows, every other column of the run, every setting of its sweep, and the same column of other runs.

    sweep: masked losses of the run's rows under further settings, if there are any. others: runs of the same rows.
    """
    table, column = candidates.table, selection.column
    names = [name for name in rankable_columns(table.schema) if name not in _NO_SCORES | {column}]
    columns = {name: ranking_values(table, name) for name in names}
    settings: Iterable[tuple[str, Values]] = ()
    if sweep is not None and {"delta", "masked_loss"} & stored_columns(column, table.schema):
        settings = ((name, ranking_values(changed, column)) for name, changed in _with_settings(candidates, sweep))
    runs = ((name, _of_run(candidates, run, column)) for name, run in others.items())
    groups: dict[str, Iterable[tuple[str, Values]]] = {"columns": columns.items(), "settings": settings, "runs": runs}
    found = {
        group: {name: overlap(candidates, values, selection) for name, values in scores}
        for group, scores in groups.items()
    }
    strata = strata_of(candidates.table, selection.quota_by)
    kept = np.searchsorted(candidates.indices, selection.indices)
    budgets = np.bincount(strata.codes[kept], minlength=strata.n)
    by_chance = float((budgets**2 / strata.sizes).sum() / len(selection))  # under the same quotas
    return {"random": round(by_chance, 4)} | {
        group: {name: one for name, one in scores.items() if one is not None} for group, scores in found.items()
    }


def overlap(candidates: Candidates, values: Values, selection: Selection) -> Overlap | None:
    """The share of the kept rows that other values of the candidates keep too, and the correlation of the ranks.

    None where too few values are finite to fill the budget, or the rule can't be followed with them.
    """
    has_value = np.flatnonzero(np.isfinite(values))
    if len(has_value) < len(selection):
        return None
    others = replace(candidates.take(has_value), values=values[has_value])
    try:
        kept = make_rule(selection.rule, selection.options).choose(others, len(selection)).positions
    except SettingsError:  # such as a minimum per stratum that these rows can't fill
        return None
    return {
        "overlap": round(float(np.isin(others.indices[kept], selection.indices).mean()), 4),
        "spearman": rounded(spearman(candidates.values, values)),
    }


def _of_run(candidates: Candidates, run: RunFolder, column: str) -> Values:
    """The column of another run at the candidates, NaN where a row failed there."""
    table = run.read_scores(encoded=True)
    return np.where(is_scored(table), ranking_values(table, column), np.nan)[candidates.indices]


def _with_settings(candidates: Candidates, sweep: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each setting's name, and the candidates' table with its losses; only what differs between settings is named."""
    fields = [name for name in sweep.column_names if name not in {"row", "masked_loss", "delta"}]
    strata = strata_of(sweep, fields)
    changing = [name for name in fields if pc.count_distinct(sweep[name]).as_py() > 1] or fields
    for code, first in enumerate(strata.firsts.tolist()):
        of_setting = sweep.filter(pa.array(strata.codes == code))
        positions = pc.index_in(pa.array(candidates.indices), of_setting["row"].combine_chunks())
        table = candidates.table
        for column in ("masked_loss", "delta"):
            table = table.set_column(table.column_names.index(column), column, of_setting[column].take(positions))
        yield ", ".join(f"{field} {sweep[field][first].as_py()}" for field in changing), table
