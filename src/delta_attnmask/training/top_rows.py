"""Rows by the key of their bytes, and which of a scored run's rows are in its top share. No torch here."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.columns import ranking_values, stored_columns
from delta_attnmask.selecting.rules import Values
from delta_attnmask.selecting.top import top_set

Numbers = NDArray[np.int64]

_HEX_DIGITS = 15  # 60 bits: fit a signed integer, and among ten million rows two alike are unlikely (1 in 23,000)


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
    positions: Numbers = finite[top_set(values[finite], n_top)]
    return positions
