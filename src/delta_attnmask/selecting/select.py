"""Scores and a budget to a selection, by a named rule. numpy and pyarrow only."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.band import band
from delta_attnmask.selecting.columns import ranking_values
from delta_attnmask.selecting.diverse import diverse
from delta_attnmask.selecting.embeddings import Vectors
from delta_attnmask.selecting.quota import quota
from delta_attnmask.selecting.rules import Candidates, Positions, Rule
from delta_attnmask.selecting.top import top
from delta_attnmask.selection import Budget, Selection

RULES: dict[str, Callable[..., Rule]] = {"top": top, "band": band, "quota": quota, "diverse": diverse}


def select_rows(
    scores: pa.Table,
    budget: Budget,
    *,
    column: str = "delta",
    rule: str = "top",
    **options: Any,
) -> Selection:
    """Keep rows of a run's scores.

    column: a numeric column of the scores, or one that `derived` makes of them. rule, options: a name in `RULES` and
    what that function takes, such as rule="quota", columns=("source", "answer_type"). For rules that need embeddings
    take `find_candidates` and `select_candidates`.

    A failed row, and one whose value is null, NaN or infinite, is never kept, and a share is a share of the others.
    Raises SettingsError for an unknown rule, option or column, and if there is nothing to keep.
    """
    make_rule(rule, **options)
    return select_candidates(find_candidates(scores, column), budget, column=column, rule=rule, **options)


def select_candidates(
    candidates: Candidates, budget: Budget, *, column: str, rule: str = "top", **options: Any
) -> Selection:
    """The same for candidates that are found already; `column` is the name of what they are ranked by."""
    choice = make_rule(rule, **options)(candidates, budget.resolve(len(candidates)))
    return Selection(
        rows=candidates.table["row"].to_numpy()[candidates.in_table(choice.positions)],
        reasons=choice.reasons,
        reason_idx=choice.reason_idx,
        rule=rule,
        column=column,
        budget=budget,
        n_candidates=len(candidates),
        options=options,
        details=choice.details,
    )


def make_rule(rule: str, **options: Any) -> Rule:
    """The rule of that name with its options; SettingsError lists what there is."""
    if rule not in RULES:
        raise SettingsError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    known = signature(RULES[rule]).parameters
    if unknown := [name for name in options if name not in known]:
        raise SettingsError(f"rule {rule!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return RULES[rule](**options)


def find_candidates(scores: pa.Table, column: str, vectors: Callable[[Positions], Vectors] | None = None) -> Candidates:
    """The rows with the status ok and a finite value in the column; SettingsError if there is none.

    vectors: gives the embeddings of rows by their positions in `scores`.
    """
    values = ranking_values(scores, column)
    is_candidate = np.isfinite(values)
    is_candidate &= pc.equal(scores["status"], "ok").to_numpy()
    if is_candidate.all() and len(values):
        return Candidates(values, scores, None, vectors)
    positions = np.flatnonzero(is_candidate)
    if not len(positions):
        raise SettingsError(f"no row has both the status ok and a finite {column}; nothing can be kept")
    return Candidates(values[positions], scores, positions, vectors)
