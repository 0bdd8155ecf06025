"""The folder of a run, an evaluation or a training: it resumes what it holds and refuses all else. No torch here.

FOLDER/manifest.json   what it holds: a second start must agree with it
FOLDER/lock            held by the process that writes; shards of a run also have their own, such as `lock-0-of-8`

Folders with tables have them by unit, a unit being some hundred input rows:

FOLDER/TABLE/unit-00000.parquet           a table's rows of one unit, whole or not there
FOLDER/TABLE/merged-00000-00999.parquet   the same of many units; it covers their own files
"""

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.locations import FileStore
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.storage import TEMPORARY, remove_stale

_WAIT_S = 5.0  # for shards that start at the same moment
_MERGED_BYTES = 128 << 20  # at most, of the files that are merged into one
_ROW_GROUP = 1 << 17
_FILE = re.compile(r"(?:[a-z]+-(\d+)|merged-(\d+)-(\d+))\.parquet")
_N_NAMED = 5  # missing units that a message names


class Folder:
    """A folder that holds one thing. `open` reads it, `start` holds it for writing, `join` writes for its holder."""

    kind: ClassVar[str]  # what it holds, in messages
    command: ClassVar[str]  # what makes it
    identity_file: ClassVar[str] = "manifest.json"
    early_files: ClassVar[frozenset[str]] = frozenset()  # what may be there before the first start
    takes_urls: ClassVar[bool] = True

    def __init__(self, files: FileStore, manifest: Manifest, shard: Shard = WHOLE) -> None:
        self.files, self.manifest, self.shard = files, manifest, shard

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """What the manifest's file says; raises ValueError, KeyError or TypeError where it says nothing."""
        return Manifest.from_json(text)

    @classmethod
    def open(cls, location: str | Path) -> Self:
        """Open a folder for reading; ArtifactError if it doesn't hold this."""
        files = FileStore(location)
        if (found := cls._find(files)) is None:
            raise ArtifactError(
                f"{files} holds no {cls.kind}: it has no {cls.identity_file}; "
                f"`delta-attnmask {cls.command} --out` makes one"
            )
        return cls(files, found)

    @classmethod
    @contextmanager
    def start(cls, location: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Iterator[Self]:
        """Begin in a new or empty folder, or resume the same thing; the folder is locked meanwhile.

        A whole run is alone in its folder, and holds every lock; shards share it, each with its own lock.
        Raises ArtifactError, naming every difference, if the folder holds something else, and if another process
        works on it.
        """
        files = FileStore(location)
        if not (files.is_local or cls.takes_urls):
            raise ArtifactError(f"{files}: a {cls.kind} needs a folder on this machine; copy it when it is done")
        cls.refuse_foreign(location)
        with ExitStack() as held:
            with ExitStack() as begun:  # a shard keeps others from beginning, but only while it begins itself
                is_whole = shard.is_whole
                locks = [(held if is_whole else begun).enter_context(files.lock("lock", 0 if is_whole else _WAIT_S))]
                shares = [name for name in files.names() if name.startswith("lock-")]
                own = shares if is_whole else [f"lock{shard.tag}"]
                locks += [held.enter_context(files.lock(name)) for name in own]
                if cls._find(files) is None:
                    with files.write(cls.identity_file, shard.tag) as file:
                        file.write(manifest.to_json().encode())
                found = cls._find(files) or manifest  # without locks, another's
            cls._refuse_another(files, found, manifest)
            if all(locks):
                remove_stale(files.path, shard.tag)
            yield cls(files, found, shard)

    @classmethod
    def join(cls, location: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Self:
        """Write units of what another process holds, or of its shard; ArtifactError where that is something else."""
        folder = cls.open(location)
        cls._refuse_another(folder.files, folder.manifest, manifest)
        folder.shard = shard
        return folder

    @classmethod
    def refuse_foreign(cls, location: str | Path) -> None:
        """Raise ArtifactError where nothing could start in a folder because of its contents, before any computing.

        Without an identity file it may hold only what a process leaves that was killed before it wrote one.
        """
        files = FileStore(location)
        if files.is_local and files.path.is_file():
            raise ArtifactError(f"{files} is a file; choose a folder")
        names = files.names()
        own = [name for name in names if name.startswith("lock") or name.endswith(TEMPORARY) or name in cls.early_files]
        if len(names) > len(own) and cls.identity_file not in names:
            foreign = min(set(names) - set(own))
            raise ArtifactError(f"{files} isn't empty and holds no {cls.kind} (it has {foreign!r}); choose another")

    @property
    def path(self) -> Path:
        """The folder; for one at a URL a copy of its JSON files."""
        return self.files.path

    @property
    def location(self) -> str:
        """The folder as a user would name it: its path or its URL."""
        return self.files.location

    @property
    def manifest_sha256(self) -> str:
        return sha256(self.files.read(self.identity_file) or b"").hexdigest()

    def write_json(self, name: str, content: Any, indent: int | None = None) -> None:
        with self.files.write(name, self.shard.tag) as file:
            file.write((json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode())

    @classmethod
    def _find(cls, files: FileStore) -> Manifest | None:
        try:
            content = files.read(cls.identity_file)
            return None if content is None else cls.parse(content.decode())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{files}/{cls.identity_file} can't be read: {error}") from error

    @classmethod
    def _refuse_another(cls, files: FileStore, found: Manifest, manifest: Manifest) -> None:
        if differences := found.differences(manifest):
            raise ArtifactError(
                f"{files} holds another {cls.kind}; choose another folder, or use the same options. "
                f"What differs: {'; '.join(differences)}"
            )


class UnitFile(NamedTuple):
    """A file that holds the rows of the units `first` to `last`. name: with the folder of its table."""

    name: str
    first: int
    last: int

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def is_merged(self) -> bool:
        return posixpath.basename(self.name).startswith("merged")


class UnitFolder(Folder):
    """A folder with tables by unit. Where a table isn't named, the main one is meant."""

    main_table: ClassVar[str]  # a unit is done when its rows of this table are in place
    unit_name: ClassVar[str] = "unit"

    @property
    def schema(self) -> pa.Schema:
        """The columns of the main table."""
        raise NotImplementedError

    @property
    def n_units(self) -> int:
        return self.manifest.n_units

    def unit_rows(self, unit: int, last: int | None = None) -> range:
        """The input rows of a unit, or of those up to a last one."""
        return self.manifest.rows_of(unit, last)

    def unit_path(self, unit: int, table: str = "") -> Path:
        """Where a unit is written; see `unit_files` for what is there."""
        return self.path / self._file_name(unit, table)

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
        if missing := sorted(set(range(self.n_units)) - self.finished_units()):
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

        only: which rows. options: of pyarrow's `dataset`.
        """
        options = {"format": "parquet", "filesystem": self.files.filesystem} | options
        try:
            return ds.dataset([file.name for file in files], **options).to_table(columns=columns, filter=only)
        except Exception as error:  # plug-ins for stores raise what their clients raise
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

    def merge_files(self, table: str, max_bytes: int = _MERGED_BYTES) -> None:
        """Put the unit files of a table into few large ones.

        A merged file is in place, checked, before those that it replaces are removed; until then it covers them.
        """
        for group in self._groups(table, max_bytes):
            first, last = group[0].first, group[-1].last
            rows = self.unit_rows(first, last)
            merged = self.read_files(group, **({"schema": self.schema} if table == self.main_table else {}))
            if table == self.main_table:
                self.require_rows(merged, rows)
            elif not set(merged["row"].to_pylist()) <= set(rows):
                raise ArtifactError(f"{self.location}: units {first} to {last} of {table!r} have other rows")
            self.write_table(merged, first, table, last)
            for file in group:
                self.files.remove(file.name)
        for file in set(self._all_files(table)) - set(self.unit_files(table)):
            self.files.remove(file.name)

    def _groups(self, table: str, max_bytes: int) -> list[list[UnitFile]]:
        """Unit files that follow each other, up to a size; what is merged already stays as it is."""
        groups: list[list[UnitFile]] = [[]]
        n_bytes = 0
        for file in self.unit_files(table):
            n_bytes += (size := self.files.size(file.name))
            if file.is_merged or n_bytes > max_bytes:
                groups.append([])
                n_bytes = size
            if not file.is_merged:
                groups[-1].append(file)
        return [group for group in groups if len(group) > 1]

    def _file_name(self, unit: int, table: str, last: int | None = None) -> str:
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
