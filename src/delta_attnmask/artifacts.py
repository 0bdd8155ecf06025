"""A run folder: its manifest and its scores, by unit. No torch here.

RUN/manifest.json                      what was scored, with what: a second start must agree with it
RUN/scores/unit-00000.parquet          one row for each input row of the unit
RUN/scores/merged-00000-00999.parquet  the same for many units, which `merge` has put together
RUN/pace.json                          rows scored so far and the seconds that took, over all starts
RUN/failed.json                        units that kept failing at the last start, with their reasons
RUN/complete.json                      written when no unit is missing
RUN/lock                               held by the process that writes

Shards have `lock`, `pace` and `failed` files of their own, such as `lock-0-of-8`. Side tables lie as the scores do, in
folders of their names.
"""

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import (
    WHOLE,
    Manifest,
    Shard,
    agree,
    collect_versions,
    read_manifest,
    refuse_another,
    refuse_foreign_files,
)
from delta_attnmask.pace import Pace, PaceKeeper, read_pace, remove_paces
from delta_attnmask.parts import Part, find_parts, unit_path, without_covered
from delta_attnmask.remote import RemoteFolder, as_path, as_url, fetch_about, fetch_run, refuse_foreign
from delta_attnmask.scores import SampleScore, reading_options, score_schema, score_table
from delta_attnmask.storage import (
    hold_lock,
    remove_stale,
    write_atomically,
    write_text_atomically,
)

__all__ = [
    "Manifest",
    "Pace",
    "Part",
    "RunFolder",
    "collect_versions",
    "refuse_foreign_folder",
    "write_atomically",
    "write_text_atomically",
]

_N_NAMED = 5  # missing units that a message names


class RunFolder:
    """The folder of one run. `open` reads it; `start` holds it for writing; `join` writes for who holds it.

    A run folder behind a URL has a copy on this machine, `path`. For reading it is fetched; for writing it stays almost
    empty, and what is written goes on to the URL.
    """

    def __init__(
        self, path: Path, manifest: Manifest, shard: Shard = WHOLE, remote: RemoteFolder | None = None
    ) -> None:
        self.path, self.manifest, self.shard, self._remote = path, manifest, shard, remote
        self._pace = PaceKeeper(path, shard.tag)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run for reading; ArtifactError if there is none."""
        url = as_url(path)
        folder = as_path(path) if url is None else fetch_run(RemoteFolder(url))
        manifest = read_manifest(folder)
        if manifest is None:
            raise ArtifactError(
                f"{path} is no run folder: it has no manifest.json; `delta-attnmask score --out` makes one"
            )
        run = cls(folder, manifest)
        if url is not None:
            weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
        return run

    @classmethod
    @contextmanager
    def start(cls, path: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Iterator[Self]:
        """Begin a run in a new or empty folder, or go on with the same run; the folder is locked meanwhile.

        A whole run is alone in its folder; shards share it, each with its own lock.
        Raises ArtifactError, naming every difference, if the folder belongs to another run, and if another process
        works on it.
        """
        if (url := as_url(path)) is not None:
            with cls._start_remote(RemoteFolder(url), manifest, shard) as run:
                yield run
            return
        path = as_path(path)
        try:
            (path / "scores").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"run folder {path} can't be made: {error.strerror}") from error
        with _locks(path, shard) as is_locked:
            found = agree(path, manifest, shard)
            if is_locked:
                remove_stale(path, shard.tag)
            yield cls(path, found, shard)

    @classmethod
    @contextmanager
    def _start_remote(cls, remote: RemoteFolder, manifest: Manifest, shard: Shard) -> Iterator[Self]:
        with tempfile.TemporaryDirectory() as copy:
            fetch_about(remote, Path(copy))
            if not (Path(copy) / "manifest.json").exists():
                refuse_foreign(remote)
                remote.create("manifest.json", manifest.to_json().encode())
                remote.fetch("manifest.json", Path(copy))  # another shard may have been faster
            with cls.start(copy, manifest, shard) as run:
                run._remote = remote
                yield run

    @classmethod
    def join(cls, path: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Self:
        """Write units of a run, or of a shard, that another process holds; ArtifactError where it isn't this run."""
        if (url := as_url(path)) is None:
            run = cls.open(path)
            refuse_another(run.path, run.manifest, manifest)
            return cls(run.path, run.manifest, shard)
        remote, copy = RemoteFolder(url), Path(tempfile.mkdtemp())
        remote.fetch("manifest.json", copy)
        found = cls.open(copy)
        refuse_another(copy, found.manifest, manifest)
        run = cls(copy, found.manifest, shard, remote)
        weakref.finalize(run, shutil.rmtree, copy, ignore_errors=True)
        return run

    @property
    def location(self) -> str:
        """The folder as a user would name it: its path or its URL."""
        return str(self.path) if self._remote is None else self._remote.url

    @property
    def n_units(self) -> int:
        return self.manifest.n_units

    @property
    def schema(self) -> pa.Schema:
        """The columns of the scores."""
        return score_schema(self.manifest.extra_columns)

    @property
    def is_complete(self) -> bool:
        return (self.path / "complete.json").exists()

    @property
    def manifest_sha256(self) -> str:
        return sha256((self.path / "manifest.json").read_bytes()).hexdigest()

    def unit_rows(self, unit: int) -> range:
        """The input rows of a unit."""
        return self.manifest.rows_of(unit)

    # Units and parts

    def shard_path(self, unit: int, kind: str = "scores") -> Path:
        """Where a unit is written; after `merge` it is in a larger file, see `parts`."""
        return unit_path(self.path / kind, unit)

    def parts(self, kind: str = "scores") -> list[Part]:
        """The files that hold a table, in order, each unit once; units that aren't there are left out."""
        names = None if self._remote is None else self._remote.names(kind)
        parts = without_covered(find_parts(self.path / kind, names))
        return [part for part in parts if part.last < self.n_units]

    def finished_units(self) -> set[int]:
        """The units whose scores are in place."""
        return {unit for part in self.parts() for unit in part.units}

    def units_to_do(self) -> list[int]:
        """The units of this process's shard that are missing."""
        finished = self.finished_units()
        return [unit for unit in range(self.n_units) if self.shard.owns(unit) and unit not in finished]

    def write_unit(self, unit: int, scores: Sequence[SampleScore], **side_tables: pa.Table) -> None:
        """Put a unit's scores in place, whole or not at all; side tables go first, below folders of their names.

        The scores must be those of the unit's rows, each once; their order doesn't matter.
        """
        ordered = sorted(scores, key=lambda score: score.row)
        if [score.row for score in ordered] != list(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs exactly the rows {self.unit_rows(unit)}, got {len(ordered)} rows")
        for kind, table in side_tables.items():
            self._write_table(self.shard_path(unit, kind), table)
        self._write_table(self.shard_path(unit), score_table(ordered, self.manifest.extra_columns))

    def _write_table(self, path: Path, table: pa.Table) -> None:
        with write_atomically(path, self.shard.tag) as file:
            pq.write_table(table, file, compression="zstd")
        self._hand_on(path)
        if self._remote is not None:
            path.unlink()  # nobody reads it here

    def _hand_on(self, path: Path) -> None:
        """Put a file that was written or removed here to where the run is, if that is elsewhere."""
        if self._remote is None:
            return
        name = path.relative_to(self.path).as_posix()
        if path.exists():
            self._remote.put(name, path.read_bytes())
        elif name in self._remote.names():
            self._remote.remove(name)

    # How far the run is

    @property
    def pace(self) -> Pace:
        """How long the units took that are in place; no rows if nobody knows."""
        return read_pace(self.path)

    def count(self, n_rows: int) -> None:
        """Count the rows of a unit that is done, and the time since the last one."""
        self._pace.count(n_rows)

    def keep_pace(self) -> None:
        """Write down what was counted."""
        self._pace.write()
        if (self.path / f"pace{self.shard.tag}.json").exists():
            self._hand_on(self.path / f"pace{self.shard.tag}.json")

    @property
    def failed_path(self) -> Path:
        return self.path / f"failed{self.shard.tag}.json"

    def keep_failed(self, failed: Sequence[dict[str, Any]]) -> None:
        """Say which units kept failing; nothing is left of what an earlier start said."""
        if failed:
            write_text_atomically(self.failed_path, json.dumps({"units": list(failed)}, indent=1) + "\n")
        elif self.failed_path.exists():
            self.failed_path.unlink()
        self._hand_on(self.failed_path)

    def withdraw(self) -> None:
        """Take the manifest away if no unit is in place, so that a corrected start may be another run.

        Of a shard nothing is taken, since the others go by the manifest.
        """
        if self.shard.is_whole and not self.finished_units():
            (self.path / "manifest.json").unlink(missing_ok=True)
            self._hand_on(self.path / "manifest.json")

    def mark_complete(self) -> None:
        """Say that nothing is missing; ArtifactError if a unit is. Only who holds the whole run may say so."""
        self.require_all()
        self.keep_pace()
        counts = {"n_rows": self.manifest.n_rows, "n_units": self.n_units, "pace": asdict(self.pace)}
        write_text_atomically(self.path / "complete.json", json.dumps(counts) + "\n")
        self._hand_on(self.path / "complete.json")
        for path in remove_paces(self.path):
            self._hand_on(path)
        remove_stale(self.path)

    def require_all(self) -> None:
        """Raise ArtifactError if a unit is missing, of whatever shard."""
        finished = self.finished_units()
        if missing := [unit for unit in range(self.n_units) if unit not in finished]:
            named = ", ".join(map(str, missing[:_N_NAMED])) + (", …" if len(missing) > _N_NAMED else "")
            raise ArtifactError(
                f"{self.path} is incomplete: {len(missing)} of {self.n_units} units are missing ({named}); "
                "start the same `score` command again to finish it"
            )

    # Reading

    def read_scores(self, columns: Sequence[str] | None = None, *, encoded: bool = False) -> pa.Table:
        """All scores in the order of the input; ArtifactError unless every row is there exactly once.

        encoded: give the texts that repeat (status, source, question, answer type) as dictionaries, which reads and
            groups millions of rows some times faster.
        """
        self.require_all()
        schema = self.schema
        if unknown := sorted(set(columns or ()) - set(schema.names)):
            raise ArtifactError(f"{self.path} has no column {unknown[0]!r}; it has {', '.join(schema.names)}")
        wanted = list(dict.fromkeys(["row", *(columns or schema.names)]))
        files = [str(part.path) for part in self.parts()]
        try:
            table = ds.dataset(files, **reading_options(schema, encoded)).to_table(columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.path}: the scores can't be read: {error}") from error
        rows = table.column("row").to_numpy()
        if not np.array_equal(rows, np.arange(self.manifest.n_rows)):
            raise ArtifactError(
                f"{self.path}: expected the rows 0 to {self.manifest.n_rows - 1}, each once and in order"
            )
        return table if columns is None else table.select(list(columns))

    def read_failed(self) -> pa.Table:
        """`row`, `reason_code` and `reason` of the failed rows that this process's shard has in place, in order."""
        parts = [part for part in self.parts() if part.is_merged or self.shard.owns(part.first)]
        with tempfile.TemporaryDirectory() as copy:
            if self._remote is not None:
                for part in parts:
                    self._remote.fetch(f"scores/{part.path.name}", Path(copy))
            home = self.path if self._remote is None else Path(copy)
            files = [str(home / "scores" / part.path.name) for part in parts]
            failed = ds.dataset(files, **reading_options(self.schema, encoded=False)).to_table(
                columns=["row", "reason_code", "reason"], filter=ds.field("status") == "failed"
            )
        return failed.sort_by("row")

    def read_side(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """A side table, units in order; None where the run has none. ArtifactError if it can't be read."""
        files = [str(part.path) for part in self.parts(kind)]
        try:
            return ds.dataset(files, format="parquet").to_table(columns=columns) if files else None
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.path / kind} can't be read: {error}") from error


def refuse_foreign_folder(location: str | Path) -> None:
    """Raise ArtifactError where no run could start in a folder for what lies there, before anything is computed."""
    if (url := as_url(location)) is not None:
        refuse_foreign(RemoteFolder(url))
    elif (path := as_path(location)).is_dir():
        refuse_foreign_files(path)


@contextmanager
def _locks(path: Path, shard: Shard) -> Iterator[bool]:
    """Lock the folder, or for a shard its own share of it; False where the file system has no locks."""
    with ExitStack() as stack:
        is_locked = stack.enter_context(hold_lock(path / "lock", shared=not shard.is_whole))
        if not shard.is_whole:
            is_locked = stack.enter_context(hold_lock(path / f"lock{shard.tag}"))
        yield is_locked
