"""Columns to strata: for each row the number of the group that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Positions

Codes = NDArray[np.int32]

_DENSE = 1 << 22  # combinations of values up to which a table of all of them is cheaper than sorting the rows


@dataclass(frozen=True)
class Strata:
    """codes: the stratum of each row, from 0 to `n - 1`, each of which occurs. [n_rows]"""

    codes: Codes
    n: int

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.bincount(self.codes, minlength=self.n)

    @property
    def firsts(self) -> Positions:
        """The first row of each stratum. [n]"""
        rows = np.zeros(self.n, dtype=np.intp)
        rows[self.codes[::-1]] = np.arange(len(self.codes))[::-1]
        return rows

    def take(self, positions: Positions) -> "Strata":
        """The strata of some rows, numbered anew."""
        return renumber(self.codes[positions], self.n)

    def __and__(self, other: "Strata") -> "Strata":
        """The strata of both together."""
        if self.n == 1 or other.n == 1:
            return other if self.n == 1 else self
        return renumber(self.codes * np.int64(other.n) + other.codes, self.n * other.n)


def strata_of(table: pa.Table, columns: Sequence[str]) -> Strata:
    """The strata by the values of `columns` together; without columns all rows are one stratum."""
    found = Strata(np.zeros(len(table), dtype=np.int32), 1)
    for column in columns:
        codes, values = encode(table, column)
        found = found & renumber(codes, len(values))
    return found


def strata_of_values(*columns: Sequence[object]) -> Strata:
    """The same of plain sequences, one for each column."""
    return strata_of(
        pa.table({str(idx): list(map(str, column)) for idx, column in enumerate(columns)}),
        list(map(str, range(len(columns)))),
    )


def encode(table: pa.Table, column: str) -> tuple[Codes, list[str]]:
    """Each row's value as a number, and the values as text in the order of the numbers; null counts as ""."""
    if column not in table.column_names:
        raise SettingsError(f"quota by {column!r}: no such column; there are {', '.join(table.column_names)}")
    values = table[column]
    if not pa.types.is_dictionary(values.type):
        values = pc.dictionary_encode(values, null_encoding="encode")
    values = values.unify_dictionaries()
    if not values.num_chunks:
        return np.zeros(0, dtype=np.int32), []
    indices = [chunk.indices for chunk in values.chunks]
    names = ["" if value is None else str(value) for value in values.chunk(0).dictionary.to_pylist()]
    if any(chunk.null_count for chunk in indices):  # a dictionary that was read may leave nulls out of its values
        names.append("")
        indices = [pc.fill_null(chunk, pa.scalar(len(names) - 1, chunk.type)) for chunk in indices]
    codes: Codes = np.concatenate([chunk.to_numpy() for chunk in indices]).astype(np.int32, copy=False)
    return codes, names


def renumber(codes: NDArray[np.integer], n: int) -> Strata:
    """Number the codes that occur, in their order; `n` is above the highest."""
    if n > _DENSE:
        used, dense = np.unique(codes, return_inverse=True)
        return Strata(dense.astype(np.int32), len(used))
    is_used = np.bincount(codes, minlength=n) > 0
    if is_used.all():
        return Strata(codes.astype(np.int32, copy=False), n)
    number = np.cumsum(is_used, dtype=np.int32) - 1
    return Strata(number[codes].astype(np.int32, copy=False), int(is_used.sum()))
