"""A run folder: its manifest, its shards written atomically, and its lock. No torch here.

RUN/manifest.json              what was scored, with what: a second start must agree with it
RUN/scores/unit-00000.parquet  one row for each input row of the unit
RUN/pace.json                  rows scored so far and the seconds that took, over all starts; until it is complete
RUN/complete.json              written when no unit is missing
RUN/lock                       held by the process that writes
"""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.records import Fingerprint
from delta_attnmask.scores import REPEATING, SampleScore, score_schema, score_table

MANIFEST_SCHEMA = 1
_VERSIONED = ("delta-attnmask", "torch", "transformers", "tokenizers", "pillow", "pyarrow", "numpy")
_TEMPORARY = ".tmp"


def collect_versions() -> dict[str, str]:
    """The versions of everything that can change a score, without importing any of it."""
    versions = {"python": python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a run scores, and with what.

    model, data, images: names and paths as given; a run may go on with the same things at another place.
    model_fingerprint, settings, input, format, n_rows, unit_rows, extra_columns: decide the scores and how they are
        laid out, so they must not change within a folder.
    settings: plain JSON values.
    unit_rows: rows a work unit; the last one may have fewer.
    """

    model: str
    model_fingerprint: str
    settings: Mapping[str, Any]
    data: str
    images: str
    input: Fingerprint
    format: str
    n_rows: int
    unit_rows: int
    extra_columns: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=collect_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> str:
        return json.dumps({"schema": MANIFEST_SCHEMA} | asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what is no manifest of this version."""
        values = json.loads(text)
        if values.pop("schema") != MANIFEST_SCHEMA or set(values) != {field.name for field in fields(cls)}:
            raise ValueError("written by another version")
        values["input"] = Fingerprint(**values["input"])
        return cls(**values | {name: tuple(values[name]) for name in ("extra_columns", "command")})

    def differences(self, other: Self) -> list[str]:
        """What keeps `other` from going on with this run, field by field."""
        mine, theirs = self._identity(), other._identity()
        return [
            f"{name}: {mine.get(name)!r} there, {theirs.get(name)!r} now"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]

    def _identity(self) -> dict[str, Any]:
        fixed = ("model_fingerprint", "format", "n_rows", "unit_rows", "extra_columns")
        settings = json.loads(json.dumps(dict(self.settings)))  # as a manifest that was read back has them
        return (
            {name: getattr(self, name) for name in fixed}
            | {f"input.{name}": value for name, value in asdict(self.input).items()}
            | {f"settings.{name}": value for name, value in settings.items()}
        )


@dataclass(frozen=True)
class Pace:
    """How long scoring took: wall-clock seconds from the start to the last unit, for the rows of these units.

    Summed over all starts; a process that is killed in the middle of a unit leaves that unit out.
    """

    n_rows: int = 0
    seconds: float = 0.0


class RunFolder:
    """The folder of one run. `RunFolder.open` reads it, `RunFolder.start` also writes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._since = time.monotonic()

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
    def start(cls, path: str | Path, manifest: Manifest) -> Iterator[Self]:
        """Begin a run in a new or empty folder, or go on with the same run; the folder is locked meanwhile.

        Raises ArtifactError, naming every difference, if the folder belongs to another run, and if another process
        works on it.
        """
        path = Path(path)
        try:
            (path / "scores").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"run folder {path} can't be made: {error.strerror}") from error
        with _lock(path):
            found = _read_manifest(path)
            if found is None:
                _refuse_foreign_files(path)
                write_text_atomically(path / "manifest.json", manifest.to_json())
            elif differences := found.differences(manifest):
                raise ArtifactError(
                    f"{path} holds another run; choose another folder, or repeat that run's choices. "
                    f"What differs: {'; '.join(differences)}"
                )
            _remove_stale(path)
            yield cls(path, found or manifest)

    @property
    def n_units(self) -> int:
        return -(-self.manifest.n_rows // self.manifest.unit_rows)

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

    @property
    def pace(self) -> Pace:
        """How long the units took that are in place; no rows if nobody knows."""
        for name in ("pace.json", "complete.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads((self.path / name).read_text(encoding="utf-8"))
                return Pace(**found.get("pace", found))
        return Pace()

    def _keep_pace(self, n_rows: int) -> None:
        """Count the time since the last unit."""
        now = time.monotonic()
        before = self.pace
        pace = Pace(before.n_rows + n_rows, round(before.seconds + now - self._since, 3))
        self._since = now
        write_text_atomically(self.path / "pace.json", json.dumps(asdict(pace)) + "\n")

    def unit_rows(self, unit: int) -> range:
        """The input rows of a unit."""
        first = unit * self.manifest.unit_rows
        return range(first, min(first + self.manifest.unit_rows, self.manifest.n_rows))

    def shard_path(self, unit: int, kind: str = "scores") -> Path:
        return self.path / kind / f"unit-{unit:05d}.parquet"

    def finished_units(self) -> set[int]:
        """The units whose scores are in place."""
        names = {entry.name for entry in os.scandir(self.path / "scores")}
        return {unit for unit in range(self.n_units) if self.shard_path(unit).name in names}

    def units_to_do(self) -> list[int]:
        finished = self.finished_units()
        return [unit for unit in range(self.n_units) if unit not in finished]

    def write_unit(self, unit: int, scores: Sequence[SampleScore], **side_tables: pa.Table) -> None:
        """Put a unit's scores in place, whole or not at all; side tables go first, below folders of their names.

        The scores must be those of the unit's rows, each once; their order doesn't matter.
        """
        ordered = sorted(scores, key=lambda score: score.row)
        if [score.row for score in ordered] != list(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs exactly the rows {self.unit_rows(unit)}, got {len(ordered)} rows")
        for kind, table in side_tables.items():
            _write_table(self.shard_path(unit, kind), table)
        _write_table(self.shard_path(unit), score_table(ordered, self.manifest.extra_columns))
        self._keep_pace(len(ordered))

    def mark_complete(self) -> None:
        """Say that nothing is missing; ArtifactError if a unit is."""
        if missing := self.units_to_do():
            raise ArtifactError(f"{self.path} is incomplete: {len(missing)} of {self.n_units} units are missing")
        counts = {"n_rows": self.manifest.n_rows, "n_units": self.n_units, "pace": asdict(self.pace)}
        write_text_atomically(self.path / "complete.json", json.dumps(counts) + "\n")
        (self.path / "pace.json").unlink(missing_ok=True)

    def read_scores(self, columns: Sequence[str] | None = None, *, encoded: bool = False) -> pa.Table:
        """All scores in the order of the input; ArtifactError unless every row is there exactly once.

        encoded: give the texts that repeat (status, source, question, answer type) as dictionaries, which reads and
            groups millions of rows some times faster.
        """
        if missing := self.units_to_do():
            raise ArtifactError(
                f"{self.path} is incomplete: {len(missing)} of {self.n_units} units are missing; "
                "start the same `score` command again to finish it"
            )
        schema = self.schema
        if unknown := sorted(set(columns or ()) - set(schema.names)):
            raise ArtifactError(f"{self.path} has no column {unknown[0]!r}; it has {', '.join(schema.names)}")
        wanted = list(dict.fromkeys(["row", *(columns or schema.names)]))
        shards = [str(self.shard_path(unit)) for unit in range(self.n_units)]
        try:
            table = ds.dataset(shards, **_reading(schema, encoded)).to_table(columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.path}: the scores can't be read: {error}") from error
        rows = table.column("row").to_numpy()
        if not np.array_equal(rows, np.arange(self.manifest.n_rows)):
            raise ArtifactError(
                f"{self.path}: expected the rows 0 to {self.manifest.n_rows - 1}, each once and in order"
            )
        return table if columns is None else table.select(list(columns))


def _reading(schema: pa.Schema, encoded: bool) -> dict[str, Any]:
    """How the shards are read, as arguments of pyarrow's `dataset`."""
    repeating = [name for name in REPEATING if encoded]
    for name in repeating:
        dictionary = pa.dictionary(pa.int32(), pa.string())
        schema = schema.set(schema.get_field_index(name), pa.field(name, dictionary, nullable=False))
    options = ds.ParquetReadOptions(dictionary_columns=set(repeating))
    return {"schema": schema, "format": ds.ParquetFileFormat(read_options=options)}


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write aside in the same folder, sync, and rename into place; after a failure nothing is left.

    Raises ArtifactError where the system refuses, as with a full disk.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def write_text_atomically(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def _write_table(path: Path, table: pa.Table) -> None:
    with write_atomically(path) as file:
        pq.write_table(table, file, compression="zstd")


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        is_own = entry.name in {"lock", "scores", "calibration.json"} or entry.name.endswith(_TEMPORARY)
        if not is_own or (entry.is_dir() and any(entry.iterdir())):
            raise ArtifactError(
                f"{path} isn't empty and is no run folder (it has {entry.name!r}); choose another folder"
            )


def _remove_stale(path: Path) -> None:
    """Remove what a killed process was writing; under the lock nobody else writes here."""
    for aside in [*path.glob(f".*{_TEMPORARY}"), *path.glob(f"*/.*{_TEMPORARY}")]:
        aside.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends."""
    try:
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ArtifactError(f"run folder {path} can't be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise ArtifactError(f"{path} is in use by {holder}; wait for it, or stop it and start again") from error
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)
