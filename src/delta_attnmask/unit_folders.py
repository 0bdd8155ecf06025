"""Folders whose tables are made unit by unit, a unit being some hundred input rows. No torch here.

FOLDER/TABLE/unit-00000.parquet           a table's rows of one unit, whole or not there
FOLDER/TABLE/merged-00000-00999.parquet   the same of many units; it covers their own files
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.folders import Folder
from delta_attnmask.manifest import Manifest

MAX_BYTES, MAX_UNITS = 128 << 20, 1000  # of a merged file
_ROW_GROUP = 1 << 17
_FILE = re.compile(r"(?:[a-z]+-(\d+)|merged-(\d+)-(\d+))\.parquet")
_N_NAMED = 5  # missing units that a message names


class UnitFile(NamedTuple):
    """A file that holds the rows of the units `first` to `last`. name: with its folder, as in the lines above."""

    name: str
    first: int
    last: int

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def is_merged(self) -> bool:
        return posixpath.basename(self.name).startswith("merged")


class UnitFolder(Folder[Manifest]):
    """A folder with tables by unit. Where a table isn't named, the main one is meant."""

    main_table: ClassVar[str]  # a unit is done when its rows of this table are in place
    unit_name: ClassVar[str] = "unit"

    @property
    def schema(self) -> pa.Schema:
        """The columns of the main table."""
        raise NotImplementedError

    @classmethod
    def parse(cls, text: str) -> Manifest:
        return Manifest.from_json(text)

    @property
    def n_units(self) -> int:
        return self.manifest.n_units

    def unit_rows(self, unit: int, last: int | None = None) -> range:
        """The input rows of a unit, or of those up to a last one."""
        return self.manifest.rows_of(unit, last)

    def unit_path(self, unit: int, table: str = "", last: int | None = None) -> Path:
        """Where a unit is written, or a merged file of those up to a last one; see `unit_files` for what is there."""
        return self.path / self._file_name(unit, table, last)

    def unit_files(self, table: str = "") -> list[UnitFile]:
        """The files of a table, in order, each unit once; units that aren't there are left out."""
        kept: list[UnitFile] = []
        for file in self._all_files(table):
            if file.last < self.n_units and (not kept or file.first > kept[-1].last):
                kept.append(file)
        return kept

    def finished_units(self) -> set[int]:
        """The units that are in place."""
        return {unit for file in self.unit_files() for unit in file.units}

    def units_to_do(self) -> list[int]:
        """The units of this process's shard that are missing."""
        finished = self.finished_units()
        return [unit for unit in range(self.n_units) if self.shard.owns(unit) and unit not in finished]

    def require_all(self) -> None:
        """Raise ArtifactError if a unit is missing, of whatever shard."""
        finished = self.finished_units()
        if missing := [unit for unit in range(self.n_units) if unit not in finished]:
            named = ", ".join(map(str, missing[:_N_NAMED])) + (", …" if len(missing) > _N_NAMED else "")
            raise ArtifactError(
                f"{self.location} is incomplete: {len(missing)} of {self.n_units} units are missing ({named}); "
                f"run the same `{self.command}` command again to finish it"
            )

    def read_files(
        self,
        files: Sequence[UnitFile],
        columns: Sequence[str] | None = None,
        only: ds.Expression | None = None,
        **options: Any,
    ) -> pa.Table:
        """The rows of some files, in their order; ArtifactError where they can't be read.

        only: which rows. options: of pyarrow's `dataset`. A text that a schema requires and an older version didn't
        write is empty.
        """
        places = [self.files.place(file.name) for file in files]
        try:
            found = ds.dataset(places, **{"format": "parquet", "filesystem": self.files.filesystem} | options)
            return _without_gaps(found.to_table(columns=columns, filter=only))
        except self.files.errors as error:
            raise ArtifactError(f"{self.location} can't be read: {error}") from error

    def write_table(self, table: pa.Table, unit: int, name: str = "", last: int | None = None) -> None:
        """Put the rows of a unit, or of those up to a last one, in place; whole or not at all."""
        with self.files.write(self._file_name(unit, name, last), self.shard.tag) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)

    def require_rows(self, table: pa.Table, rows: range) -> None:
        """Raise ArtifactError unless a table has these input rows, each once and in order."""
        if not np.array_equal(table["row"].to_numpy(), np.arange(rows.start, rows.stop)):
            raise ArtifactError(
                f"{self.location}: expected the rows {rows.start} to {rows.stop - 1}, each once and in order"
            )

    def merge_files(self, table: str, max_bytes: int, max_units: int) -> Iterator[int]:
        """Put the unit files of a table into few large ones; yields for how many more rows that is done.

        A merged file is in place, checked, before those that it replaces are removed; until then it covers them.
        """
        for group in self._groups(table, max_bytes, max_units):
            first, last = group[0].first, group[-1].last
            if len(group) > 1:
                options = {"schema": self.schema} if table == self.main_table else {}
                parts = [self.read_files([file], **options) for file in group]
                # one without rows may have been written before the width of its lists was known
                merged = pa.concat_tables([part for part in parts if len(part)] or parts[:1], promote_options="default")
                rows = self.unit_rows(first, last)
                if table == self.main_table:
                    self.require_rows(merged, rows)
                elif not set(merged["row"].to_pylist()) <= set(rows):
                    raise ArtifactError(f"{self.location}: units {first} to {last} of {table!r} have other rows")
                self.write_table(merged, first, table, last)
                for file in group:
                    self.files.remove(file.name)
            yield len(self.unit_rows(first, last))
        for file in set(self._all_files(table)) - set(self.unit_files(table)):
            self.files.remove(file.name)

    def _groups(self, table: str, max_bytes: int, max_units: int) -> Iterator[list[UnitFile]]:
        """Unit files that follow each other, up to a size; what is merged already stays as it is."""
        group: list[UnitFile] = []
        n_bytes = 0
        for file in self.unit_files(table):
            size = self.files.size(file.name)
            is_next = not file.is_merged and (not group or file.first == group[-1].last + 1)
            if group and not (is_next and n_bytes + size <= max_bytes and len(group) < max_units):
                yield group
                group, n_bytes = [], 0
            if not file.is_merged:
                group.append(file)
                n_bytes += size
        if group:
            yield group

    def _file_name(self, unit: int, table: str, last: int | None) -> str:
        name = f"{self.unit_name}-{unit:05d}" if last is None else f"merged-{unit:05d}-{last:05d}"
        return posixpath.join(table or self.main_table, f"{name}.parquet")

    def _all_files(self, table: str) -> list[UnitFile]:
        """The files of a table in order; a merged one comes before those that it covers."""
        folder = table or self.main_table
        found = [
            UnitFile(posixpath.join(folder, name), int(match[1] or match[2]), int(match[1] or match[3]))
            for name in self.files.names(folder)
            if (match := _FILE.fullmatch(name))
        ]
        return sorted(found, key=lambda file: (file.first, -file.last))


def _without_gaps(table: pa.Table) -> pa.Table:
    for position, field in enumerate(table.schema):
        if not field.nullable and table.column(position).null_count:
            table = table.set_column(position, field, pc.fill_null(table.column(position), ""))
    return table
