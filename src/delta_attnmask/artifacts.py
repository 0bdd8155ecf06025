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
from delta_attnmask.manifest import WHOLE, Manifest, Shard, collect_versions
from delta_attnmask.pace import Pace, PaceKeeper, read_pace, remove_paces
from delta_attnmask.parts import Part, find_parts, unit_path, without_covered
from delta_attnmask.scores import REPEATING, SampleScore, score_schema, score_table
from delta_attnmask.storage import (
    TEMPORARY,
    create_text,
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
    "write_atomically",
    "write_text_atomically",
]

_N_NAMED = 5  # missing units that a message names


class RunFolder:
    """The folder of one run. `open` reads it; `start` holds it for writing; `join` writes for who holds it."""

    def __init__(self, path: Path, manifest: Manifest, shard: Shard = WHOLE) -> None:
        self.path, self.manifest, self.shard = path, manifest, shard
        self._pace = PaceKeeper(path, shard.tag)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run for reading; ArtifactError if there is none."""
        path = Path(path)
        manifest = _read_manifest(path)
        if manifest is None:
            raise ArtifactError(
                f"{path} is no run folder: it has no manifest.json; `delta-attnmask score --out` makes one"
            )
        return cls(path, manifest)

    @classmethod
    @contextmanager
    def start(cls, path: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Iterator[Self]:
        """Begin a run in a new or empty folder, or go on with the same run; the folder is locked meanwhile.

        A whole run is alone in its folder; shards share it, each with its own lock.
        Raises ArtifactError, naming every difference, if the folder belongs to another run, and if another process
        works on it.
        """
        path = Path(path)
        try:
            (path / "scores").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"run folder {path} can't be made: {error.strerror}") from error
        with _locks(path, shard) as is_locked:
            found = _agree(path, manifest, shard)
            if is_locked:
                remove_stale(path, shard.tag)
            yield cls(path, found, shard)

    @classmethod
    def join(cls, path: str | Path, manifest: Manifest, shard: Shard = WHOLE) -> Self:
        """Write units of a run, or of a shard, that another process holds; ArtifactError where it isn't this run."""
        run = cls.open(path)
        _refuse_another(run.path, run.manifest, manifest)
        return cls(run.path, run.manifest, shard)

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
        parts = without_covered(find_parts(self.path / kind))
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

    @property
    def failed_path(self) -> Path:
        return self.path / f"failed{self.shard.tag}.json"

    def keep_failed(self, failed: Sequence[dict[str, Any]]) -> None:
        """Say which units kept failing; nothing is left of what an earlier start said."""
        if failed:
            write_text_atomically(self.failed_path, json.dumps({"units": list(failed)}, indent=1) + "\n")
        elif self.failed_path.exists():
            self.failed_path.unlink()

    def mark_complete(self) -> None:
        """Say that nothing is missing; ArtifactError if a unit is. Only who holds the whole run may say so."""
        self.require_all()
        self.keep_pace()
        counts = {"n_rows": self.manifest.n_rows, "n_units": self.n_units, "pace": asdict(self.pace)}
        write_text_atomically(self.path / "complete.json", json.dumps(counts) + "\n")
        remove_paces(self.path)
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
            table = ds.dataset(files, **_reading(schema, encoded)).to_table(columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.path}: the scores can't be read: {error}") from error
        rows = table.column("row").to_numpy()
        if not np.array_equal(rows, np.arange(self.manifest.n_rows)):
            raise ArtifactError(
                f"{self.path}: expected the rows 0 to {self.manifest.n_rows - 1}, each once and in order"
            )
        return table if columns is None else table.select(list(columns))

    def read_side(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """A side table, units in order; None where the run has none. ArtifactError if it can't be read."""
        files = [str(part.path) for part in self.parts(kind)]
        try:
            return ds.dataset(files, format="parquet").to_table(columns=columns) if files else None
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.path / kind} can't be read: {error}") from error


def _reading(schema: pa.Schema, encoded: bool) -> dict[str, Any]:
    """How the shards are read, as arguments of pyarrow's `dataset`."""
    repeating = [name for name in REPEATING if encoded]
    for name in repeating:
        dictionary = pa.dictionary(pa.int32(), pa.string())
        schema = schema.set(schema.get_field_index(name), pa.field(name, dictionary, nullable=False))
    options = ds.ParquetReadOptions(dictionary_columns=set(repeating))
    return {"schema": schema, "format": ds.ParquetFileFormat(read_options=options)}


@contextmanager
def _locks(path: Path, shard: Shard) -> Iterator[bool]:
    """Lock the folder, or for a shard its own share of it; False where the file system has no locks."""
    with ExitStack() as stack:
        is_locked = stack.enter_context(hold_lock(path / "lock", shared=not shard.is_whole))
        if not shard.is_whole:
            is_locked = stack.enter_context(hold_lock(path / f"lock{shard.tag}"))
        yield is_locked


def _agree(path: Path, manifest: Manifest, shard: Shard) -> Manifest:
    """The folder's manifest: this one if there is none yet, else the one that is there, if it is of the same run."""
    found = _read_manifest(path)
    if found is None:
        _refuse_foreign_files(path)
        create_text(path / "manifest.json", manifest.to_json(), shard.tag)
        found = _read_manifest(path)  # another shard may have been faster
    if found is None:
        raise ArtifactError(f"{path / 'manifest.json'} vanished; is another program at work in this folder?")
    _refuse_another(path, found, manifest)
    return found


def _refuse_another(path: Path, found: Manifest, manifest: Manifest) -> None:
    if differences := found.differences(manifest):
        raise ArtifactError(
            f"{path} holds another run; choose another folder, or repeat that run's choices. "
            f"What differs: {'; '.join(differences)}"
        )


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.from_json((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path / 'manifest.json'} can't be read: {error}") from error


def _refuse_foreign_files(path: Path) -> None:
    """A folder without a manifest may hold only what a run leaves that was killed before it wrote one."""
    for entry in path.iterdir():
        is_own = entry.name in {"scores", "calibration.json"} or entry.name.startswith("lock")
        is_own = is_own or entry.name.endswith(TEMPORARY)
        is_foreign = not is_own or (entry.is_dir() and any(entry.iterdir()))
        if is_foreign and not (path / "manifest.json").exists():  # another shard may have put it there meanwhile
            raise ArtifactError(
                f"{path} isn't empty and is no run folder (it has {entry.name!r}); choose another folder"
            )
