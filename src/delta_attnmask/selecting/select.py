"""Scores and a budget to a selection, by a named rule. numpy and pyarrow only."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.rules import Candidates, Rule
from delta_attnmask.selecting.top import keep_top
from delta_attnmask.selection import Budget, Selection

RULES: dict[str, Rule] = {"top": keep_top}


def select_rows(scores: pa.Table, budget: Budget, *, column: str = "delta", rule: str = "top") -> Selection:
    """Keep rows of a run's scores.

    A failed row, and one whose value is null, NaN or infinite, is never kept, and a share is a share of the others.
    Raises SettingsError for an unknown rule or column, and if there is nothing to keep.
    """
    if rule not in RULES:
        raise SettingsError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    rows, candidates = _find_candidates(scores, column)
    if not len(rows):
        raise SettingsError(f"no row has both the status ok and a finite {column}; nothing can be kept")
    choice = RULES[rule](candidates, budget.resolve(len(rows)))
    return Selection(
        rows=rows[choice.positions],
        reasons=choice.reasons,
        reason_idx=choice.reason_idx,
        rule=rule,
        column=column,
        budget=budget,
        n_candidates=len(rows),
        details=choice.details,
    )


def _find_candidates(scores: pa.Table, column: str) -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", Candidates]:
    numeric = [
        field.name for field in scores.schema if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]
    if column not in numeric:
        raise SettingsError(f"by={column!r}: expected one of the numeric columns {', '.join(numeric)}")
    is_candidate = pc.and_(pc.equal(scores["status"], "ok"), pc.fill_null(pc.is_finite(scores[column]), False))
    table = scores.filter(is_candidate)
    return table["row"].to_numpy(), Candidates(table[column].to_numpy().astype(np.float64), table)
