"""The column that rows are ranked by: stored with the scores, or derived from what is stored."""

import numpy as np
import pyarrow as pa

from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.rules import Values


def ranking_values(scores: pa.Table, column: str) -> Values:
    """The column's value for each row, NaN where it has none; higher is kept. [n_rows]

    Raises SettingsError for a column that the scores neither hold nor suffice for.
    """
    require_column(column, scores.schema)
    return (
        _stored(scores, column) if column in scores.column_names else derive(column, lambda name: _stored(scores, name))
    )


def stored_columns(column: str, schema: pa.Schema) -> set[str]:
    """What has to be read for a column."""
    require_column(column, schema)
    return {column} if column in schema.names else needed_columns(column)


def rankable_columns(schema: pa.Schema) -> list[str]:
    """The columns that rows can be ranked by: numeric ones, then derived ones."""
    numeric = _numeric(schema)
    return numeric + [name for name in derived_names() if name not in numeric and needed_columns(name) <= set(numeric)]


def require_column(column: str, schema: pa.Schema) -> None:
    """Raises SettingsError unless rows can be ranked by the column."""
    if column in rankable_columns(schema):
        return
    if column in derived_names() and column not in schema.names:
        missing = sorted(needed_columns(column) - set(_numeric(schema)))
        raise SettingsError(f"by={column!r}: needs {', '.join(missing)}; score with --also {' '.join(missing)}")
    raise SettingsError(f"by={column!r}: expected one of the numeric columns {', '.join(rankable_columns(schema))}")


def _numeric(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)]


def _stored(scores: pa.Table, name: str) -> Values:
    return np.asarray(scores[name].to_numpy(), dtype=np.float64)
