"""The rows of a training: which can be used, how often each comes, and which of them may be changed. No torch here.

Rows are identified by the key of their bytes, so that a scored run also gives the top share of a part of its data.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.reading.faults import Faults, count_faults, describe_faults
from delta_attnmask.records import Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.budgets import best_first
from delta_attnmask.selecting.candidates import ranking_values, stored_columns
from delta_attnmask.statistics import Values
from delta_attnmask.storage import write_atomically, write_text_atomically
from delta_attnmask.training.plan import TrainingPlan

Numbers = NDArray[np.int64]
OnRow = Callable[[int, int, int], None]  # rows done, rows in all, rows skipped

ROWS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "skipped"
        pa.field("reason_code", pa.string(), nullable=False),  # the kind of the reason (`ReasonCode`); empty if ok
        pa.field("reason", pa.string(), nullable=False),  # empty if ok
        pa.field("inputs", pa.string(), nullable=False),  # names of what the model is given; a batch needs the same
        pa.field("n_tokens", pa.int32()),
        pa.field("n_image_tokens", pa.int32()),
        pa.field("n_answer_tokens", pa.int32()),
    ]
)
_ROWS_AT_ONCE = 64  # between two reports
_HEX_DIGITS = 15  # 60 bits: fit a signed integer, and among ten million rows two alike are unlikely (1 in 23,000)


def find_usable_rows(encoded: Iterable[tuple[Record, Any]], n_rows: int, on_row: OnRow) -> pa.Table:
    """What came of encoding each row once, in `ROWS_SCHEMA`.

    encoded: each record with its samples (`RowEncoder`), or with the RowError that says why it can't be encoded.
    """
    lines: list[dict[str, Any]] = []
    n_skipped = 0
    for record, found in encoded:
        lines.append(_describe(record, found if isinstance(found, RowError) else found[""]))
        n_skipped += isinstance(found, RowError)
        if len(lines) % _ROWS_AT_ONCE == 0 or len(lines) == n_rows:
            on_row(len(lines), n_rows, n_skipped)
    return pa.Table.from_pylist(lines, schema=ROWS_SCHEMA)


def _describe(record: Record, sample: Any) -> dict[str, Any]:
    line = {"row": record.row, "id": record.id, "key": record.key, "source": record.source, "inputs": ""}
    if isinstance(sample, RowError):
        return line | {"status": "skipped", "reason_code": sample.code, "reason": sample.detail}
    counts = {name: getattr(sample, name) for name in ("n_tokens", "n_image_tokens", "n_answer_tokens")}
    names = " ".join(sorted(sample.inputs))
    return line | {"status": "ok", "reason_code": "", "reason": "", "inputs": names} | counts


def require_usable(table: pa.Table, plan: TrainingPlan, max_failed: float) -> None:
    """Raise DataError where no row can be trained on, or more than the share `max_failed` fail.

    Rows longer than the plan's `max_tokens` are left out on purpose, and count as no failure.
    """
    is_failed = pc.equal(table["status"], "skipped")
    if table.num_rows == pc.sum(is_failed).as_py():
        raise DataError(f"no row can be trained on; {describe_faults(skipped_faults(table))}")
    if plan.max_tokens is not None:
        is_failed = pc.and_(is_failed, pc.not_equal(table["reason_code"], ReasonCode.TOO_MANY_TOKENS))
    failed = table.filter(is_failed)
    if failed.num_rows > max_failed * table.num_rows:
        raise DataError(
            f"{failed.num_rows} of {table.num_rows} rows can't be trained on, more than the {100 * max_failed:g}% that "
            f"max_failed allows; {describe_faults(skipped_faults(failed))}"
        )


def skipped_faults(table: pa.Table) -> Faults:
    """Why rows are skipped, counted by kind."""
    skipped = table.filter(pc.equal(table["status"], "skipped"))
    return count_faults(zip(*(skipped[name].to_pylist() for name in ("row", "reason_code", "reason")), strict=True))


def write_rows(table: pa.Table, folder: Path) -> None:
    """FOLDER/rows.parquet, and FOLDER/skipped.jsonl with the row, id and reason of each skipped row."""
    skipped = table.filter(pc.equal(table["status"], "skipped")).select(["row", "id", "reason_code", "reason"])
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in skipped.to_pylist()]
    write_text_atomically(folder / "skipped.jsonl", "".join(lines))
    with write_atomically(folder / "rows.parquet") as file:
        pq.write_table(table, file, compression="zstd")


def read_rows(folder: Path) -> pa.Table | None:
    """What `write_rows` wrote; None if it hasn't yet."""
    path = folder / "rows.parquet"
    if not path.exists():
        return None
    try:
        return pq.read_table(path, schema=ROWS_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} can't be read: {error}; remove it, and it is made anew") from error


@dataclass(frozen=True)
class Examples:
    """The examples of one epoch, all `[example]`.

    rows: positions in the input; a row that comes twice is there twice. keys: the rows' key numbers.
    is_allowed: whether the example may be changed. kinds: number of its group; a batch holds one group's examples only.
    """

    rows: Numbers
    keys: Numbers
    is_allowed: NDArray[np.bool_]
    kinds: Numbers

    def __len__(self) -> int:
        return len(self.rows)


def choose_examples(table: pa.Table, plan: TrainingPlan) -> Examples:
    """The usable rows of `table` (`ROWS_SCHEMA`), the chosen ones twice where the plan says so.

    Raises SettingsError where the plan's scores know none of the rows.
    """
    usable = table.filter(pc.equal(table["status"], "ok"))
    rows = usable["row"].to_numpy()
    keys = np.array([key_number(key) for key in usable["key"].to_pylist()], dtype=np.int64)
    _, kinds = np.unique(usable["inputs"].to_pylist(), return_inverse=True)
    is_chosen = _chosen(keys, plan)
    if not plan.is_twice:
        return Examples(rows, keys, is_chosen, kinds)
    order = np.concatenate([np.arange(len(rows)), np.flatnonzero(is_chosen)])
    is_second = np.arange(len(order)) >= len(rows)
    return Examples(rows[order], keys[order], is_second, kinds[order])


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


def top_keys(run: str | Path, share: float, by: str | None = None) -> Numbers:
    """The key numbers of the top `share` of a run's rows that have a value."""
    keys, values = scored_rows(run, by)
    return keys[top_positions(values, share)]


def top_positions(values: Values, share: float) -> Numbers:
    """The positions of the top `share` of the finite values, at least one; higher is better."""
    if not 0 < share <= 1:
        raise SettingsError(f"top_share={share!r}: expected a share above 0, at most 1")
    finite = np.flatnonzero(np.isfinite(values))
    n_top = min(len(finite), max(1, round(share * len(finite))))
    positions: Numbers = finite[np.sort(best_first(values[finite], n_top))]
    return positions
