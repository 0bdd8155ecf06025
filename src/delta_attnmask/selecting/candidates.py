"""The rows that can be kept, and the column that ranks them: stored with the scores, or derived from what is stored."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.errors import SettingsError
from delta_attnmask.scores import RANKING
from delta_attnmask.statistics import Values

Positions = NDArray[np.intp]
Indices = NDArray[np.int64]
Vectors = NDArray[np.float16]
Embed = Callable[[Indices], Vectors]


@dataclass(frozen=True)
class Candidates:
    """The rows that can be kept, in the order of the input.

    values: what they are ranked by; finite, higher is better. [n_candidates]
    table: their columns. [n_candidates]
    indices: their positions in the input, ascending. [n_candidates]
    embed: gives the embeddings of rows by their indices; None where there are none.
    """

    values: Values
    table: pa.Table
    indices: Indices
    embed: Embed | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, kept: Positions) -> "Candidates":
        """Some of the candidates, in ascending order."""
        if len(kept) == len(self):
            return self
        return replace(self, values=self.values[kept], table=self.table.take(kept), indices=self.indices[kept])

    def embeddings(self, kept: Positions | None = None) -> Vectors:
        """The embeddings of some candidates, of all by default; SettingsError where there are none."""
        if self.embed is None:
            raise SettingsError("this needs embeddings of the rows; score into a new folder with --embeddings")
        return self.embed(self.indices if kept is None else self.indices[kept])


def find_candidates(table: pa.Table, column: str, embed: Embed | None = None) -> Candidates:
    """The rows with a finite value in the column that are scored.

    Raises SettingsError for an unknown column, and if no row can be kept.
    """
    values = ranking_values(table, column)
    is_candidate = np.isfinite(values)
    is_candidate &= is_scored(table)
    if not is_candidate.any():
        raise SettingsError(f"no row has both the status ok and a finite {column}; nothing can be kept")
    indices = row_indices(table)
    if is_candidate.all():
        return Candidates(values, table, indices, embed)
    return Candidates(values[is_candidate], table.filter(pa.array(is_candidate)), indices[is_candidate], embed)


def is_scored(table: pa.Table) -> NDArray[np.bool_]:
    """The rows with the status ok; all where the table has no status. [n_rows]"""
    if "status" not in table.column_names:
        return np.ones(len(table), dtype=bool)
    is_ok: NDArray[np.bool_] = pc.fill_null(pc.equal(table["status"], "ok"), False).to_numpy()
    return is_ok


def row_indices(table: pa.Table) -> Indices:
    """The rows' positions in the input: the column `row`, or without one their positions in the table. [n_rows]"""
    return np.asarray(table["row"].to_numpy() if "row" in table.column_names else np.arange(len(table)), dtype=np.int64)


def ranking_values(table: pa.Table, column: str) -> Values:
    """The column's value for each row, NaN where it has none; higher is kept. [n_rows]

    Raises SettingsError for a column that the table neither holds nor suffices for.
    """
    stored_columns(column, table.schema)
    return to_values(table, column) if column in table.column_names else derive(column, lambda n: to_values(table, n))


def with_ranking(table: pa.Table, column: str) -> pa.Table:
    """The table with the column `score`: the ranking values as float32, null where a row has none."""
    values = ranking_values(table, column)
    return table.append_column(RANKING, pa.array(values, pa.float32(), mask=~np.isfinite(values)))


def to_values(table: pa.Table, column: str) -> Values:
    """A stored column as float64, NaN where it is empty."""
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def stored_columns(column: str, schema: pa.Schema) -> set[str]:
    """What has to be read for a column; SettingsError unless rows can be ranked by it."""
    if column in rankable_columns(schema):
        return {column} if column in schema.names else needed_columns(column)
    if column in derived_names() and column not in schema.names:
        missing = sorted(needed_columns(column) - set(_numeric(schema)))
        raise SettingsError(f"by={column!r}: needs {', '.join(missing)}; score with --also {' '.join(missing)}")
    raise SettingsError(f"by={column!r}: expected one of the numeric columns {', '.join(rankable_columns(schema))}")


def rankable_columns(schema: pa.Schema) -> list[str]:
    """The columns that rows can be ranked by: numeric ones, then derived ones."""
    numeric = _numeric(schema)
    return numeric + [name for name in derived_names() if name not in numeric and needed_columns(name) <= set(numeric)]


def _numeric(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)]
