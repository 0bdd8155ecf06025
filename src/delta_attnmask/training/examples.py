"""The rows of a training: which can be used, how often each comes, and which of them may be masked. No torch here.

Rows are identified by the key of their bytes, so that a scored run also gives the top share of a part of its data.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.reading.faults import Faults, count_faults, describe_faults
from delta_attnmask.records import Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.budgets import best_first
from delta_attnmask.selecting.candidates import ranking_values, stored_columns
from delta_attnmask.statistics import Values
from delta_attnmask.training.folder import ROWS_SCHEMA
from delta_attnmask.training.plan import TrainingPlan

Numbers = NDArray[np.int64]
OnProgress = Callable[[str, int, int, int], None]  # what is done, rows done, rows in all, rows skipped

_ROWS_AT_ONCE = 64  # between two reports
_HEX_DIGITS = 15  # 60 bits: fit a signed integer, and among ten million rows two equal ones are unlikely (1 in 23,000)


def find_usable_rows(encoded: Iterable[tuple[Record, Any]], n_rows: int, on_progress: OnProgress) -> pa.Table:
    """What came of encoding each row once, in `ROWS_SCHEMA`.

    encoded: each record with its samples (`RowEncoder`), or with the RowError that says why it can't be encoded.
    """
    lines: list[dict[str, Any]] = []
    n_skipped = 0
    for record, found in encoded:
        line = {name: getattr(record, name) for name in ("row", "id", "key", "source")}
        if isinstance(found, RowError):
            line |= {"status": "skipped", "reason_code": found.code, "reason": found.detail, "inputs": ""}
            n_skipped += 1
        else:
            line |= {"status": "ok", "reason_code": "", "reason": "", "inputs": " ".join(sorted(found[""].inputs))}
        lines.append(line)
        if len(lines) % _ROWS_AT_ONCE == 0 or len(lines) == n_rows:
            on_progress("reading", len(lines), n_rows, n_skipped)
    return pa.Table.from_pylist(lines, schema=ROWS_SCHEMA)


def require_usable(table: pa.Table, plan: TrainingPlan, max_failed: float) -> None:
    """Raise DataError where no row can be trained on, or more than the share `max_failed` fail.

    Rows longer than the plan's `max_tokens` are left out on purpose, and count as no failure.
    """
    failed = table.filter(pc.equal(table["status"], "skipped"))
    if failed.num_rows == table.num_rows:
        raise DataError(f"no row can be trained on; {describe_faults(skipped_faults(table))}")
    if plan.max_tokens is not None:
        failed = failed.filter(pc.not_equal(failed["reason_code"], ReasonCode.TOO_MANY_TOKENS))
    if failed.num_rows > max_failed * table.num_rows:
        raise DataError(
            f"{failed.num_rows} of {table.num_rows} rows can't be trained on, more than the {100 * max_failed:g}% that "
            f"max_failed allows; {describe_faults(skipped_faults(failed))}"
        )


def skipped_faults(table: pa.Table) -> Faults:
    """Why rows are skipped, counted by kind."""
    skipped = table.filter(pc.equal(table["status"], "skipped"))
    return count_faults(zip(*(skipped[name].to_pylist() for name in ("row", "reason_code", "reason")), strict=True))


def choose_examples(table: pa.Table, plan: TrainingPlan) -> pa.Table:
    """The examples of one epoch: the usable rows of `table` (`ROWS_SCHEMA`), the chosen ones twice if the plan says so.

    Columns: `row`, its position in the input; `key`, its key number; `is_allowed`, whether it may be masked; `kind`,
    the number of its group: a batch holds one group's examples only.
    Raises SettingsError where the plan's scores know none of the rows.
    """
    usable = table.filter(pc.equal(table["status"], "ok"))
    keys = np.array([key_number(key) for key in usable["key"].to_pylist()], dtype=np.int64)
    _, kinds = np.unique(usable["inputs"].to_pylist(), return_inverse=True)
    is_chosen = _chosen(keys, plan)
    examples = pa.table({"row": usable["row"], "key": keys, "is_allowed": is_chosen, "kind": kinds})
    if plan.augment != "twice":
        return examples
    plain = examples.set_column(2, "is_allowed", pa.array(np.zeros_like(is_chosen)))
    return pa.concat_tables([plain, examples.filter(pa.array(is_chosen))])


def _chosen(keys: Numbers, plan: TrainingPlan) -> NDArray[np.bool_]:
    """True for the rows in the top share of the plan's scores, among these rows; for all without scores."""
    if plan.from_scores is None:
        return np.ones(len(keys), dtype=bool)
    known = dict(zip(*(column.tolist() for column in scored_rows(plan.from_scores, plan.by)), strict=True))
    values = np.array([known.get(key, np.nan) for key in keys.tolist()])
    if not np.isfinite(values).any():
        raise SettingsError(f"from_scores={str(plan.from_scores)!r}: it has a score for none of the rows")
    is_chosen = np.zeros(len(keys), dtype=bool)
    is_chosen[top_positions(values, plan.top_share)] = True
    return is_chosen


def key_number(key: str) -> int:
    """A record's key (hex SHA-256) as a whole number that a tensor can hold."""
    return int(key[:_HEX_DIGITS], 16)


def scored_rows(run: str | Path, by: str | None = None) -> tuple[Numbers, Values]:
    """The key numbers of a run's rows and their values in the column `by`, NaN where a row failed.

    by: a column as for `select`; the form that the run was scored for if not given.
    Raises ArtifactError for what is no complete run, SettingsError for an unknown column.
    """
    folder = RunFolder.open(run)
    column = by or folder.manifest.settings.get("form", "delta")
    scores = folder.read_scores(["key", *sorted(stored_columns(column, folder.schema))])
    keys = np.array([key_number(key) for key in scores["key"].to_pylist()], dtype=np.int64)
    return keys, ranking_values(scores, column)


def top_positions(values: Values, share: float) -> Numbers:
    """The positions of the top `share` of the finite values, at least one; higher is better."""
    if not 0 < share <= 1:
        raise SettingsError(f"top_share={share!r}: expected a share above 0, at most 1")
    finite = np.flatnonzero(np.isfinite(values))
    n_top = min(len(finite), max(1, round(share * len(finite))))
    positions: Numbers = finite[np.sort(best_first(values[finite], n_top))]
    return positions
