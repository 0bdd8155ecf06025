"""The folder of a scoring run: scores by unit, how fast they came, and the merge of its files. No torch here.

Beside what every folder has (see `folders`, `unit_folders`):

RUN/scores/…         one row for each input row; side tables lie beside it, in folders of their names
RUN/pace.json        rows scored so far and the seconds that took, over all starts
RUN/failed.json      units that kept failing at the last start, with their reasons
RUN/complete.json    written when no unit is missing

Shards have `pace` and `failed` files of their own, such as `pace-0-of-8.json`.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from delta_attnmask.errors import ArtifactError
from delta_attnmask.locations import LocalFolder, RemoteFolder
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.scores import SampleScore, reading_options, score_schema, score_table
from delta_attnmask.storage import remove_stale
from delta_attnmask.unit_folders import MAX_BYTES, MAX_UNITS, UnitFolder

_SECONDS_BETWEEN_WRITES, _SECONDS_BETWEEN_PUTS = 1.0, 30.0


@dataclass(frozen=True)
class Pace:
    """How long scoring took: wall-clock seconds from the start to the last unit, for the rows of these units.

    Summed over all starts; a process that is killed leaves out what it did in its last second. Of shards, which run
    side by side, the slowest counts.
    """

    n_rows: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Pace":
        """What a `pace.json` or `complete.json` says; no rows if nobody knows."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(**found.get("pace", found))
        return cls()


class RunFolder(UnitFolder):
    """The folder of one run. `open` reads it; `start` holds it for writing; `join` writes for its holder."""

    kind = "run"
    command = "score"
    early_files: ClassVar[frozenset[str]] = frozenset({"calibration.json"})
    main_table = "scores"

    def __init__(self, files: LocalFolder | RemoteFolder, manifest: Manifest, shard: Shard = WHOLE) -> None:
        super().__init__(files, manifest, shard)
        self._counted = Pace.read(self._pace_path(shard))
        self._since = self._written = time.monotonic()

    @property
    def schema(self) -> pa.Schema:
        """The columns of the scores."""
        return score_schema(self.manifest.extra_columns)

    @property
    def is_complete(self) -> bool:
        return (self.path / "complete.json").exists()

    def write_unit(self, unit: int, scores: Sequence[SampleScore], **side_tables: pa.Table) -> None:
        """Put a unit's scores in place, whole or not at all; side tables go first, into folders of their names.

        The scores must be those of the unit's rows, each once; their order doesn't matter.
        """
        ordered = sorted(scores, key=lambda score: score.row)
        if [score.row for score in ordered] != list(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs exactly the rows {self.unit_rows(unit)}, got {len(ordered)} rows")
        for name, table in side_tables.items():
            self.write_table(table, unit, name)
        self.write_table(score_table(ordered, self.manifest.extra_columns), unit)

    def write_all(
        self, scores: pa.Table, side_tables: Mapping[str, pa.Table] | None = None, *, max_units: int = MAX_UNITS
    ) -> None:
        """Put the scores of all rows in place from one table, in files of many units, and mark the run complete.

        The table must have the run's columns, and every row once and in order. In side tables the column `row` says
        where a line belongs.
        """
        if set(scores.column_names) != set(self.schema.names):
            raise ArtifactError(f"expected the columns {self.schema.names}, got {scores.column_names}")
        scores = scores.select(self.schema.names).cast(self.schema)
        self.require_rows(scores, range(self.manifest.n_rows))
        for first in range(0, self.n_units, max_units):
            last = min(first + max_units, self.n_units) - 1
            rows = self.unit_rows(first, last)
            for name, table in (side_tables or {}).items():
                is_here = pc.and_(pc.greater_equal(table["row"], rows.start), pc.less(table["row"], rows.stop))
                self.write_table(table.filter(is_here), first, name, last)
            self.write_table(scores.slice(rows.start, len(rows)), first, last=last)
        self.mark_complete()

    # How far the run is

    @property
    def pace(self) -> Pace:
        """How long the units took that are in place; no rows if nobody knows."""
        shards = [Pace.read(path) for path in sorted(self.path.glob("pace-*.json"))]
        alone = Pace.read(self._pace_path(WHOLE))
        seconds = alone.seconds + max((pace.seconds for pace in shards), default=0.0)
        return Pace(alone.n_rows + sum(pace.n_rows for pace in shards), round(seconds, 3))

    def count(self, n_rows: int) -> None:
        """Count the rows of a unit that is done, and the time since the last one."""
        now = time.monotonic()
        self._counted = Pace(self._counted.n_rows + n_rows, round(self._counted.seconds + now - self._since, 3))
        self._since = now
        if now - self._written >= (_SECONDS_BETWEEN_WRITES if self.files.filesystem is None else _SECONDS_BETWEEN_PUTS):
            self.keep_pace()

    def keep_pace(self) -> None:
        """Write down what was counted."""
        if self._counted.n_rows:
            self._written = time.monotonic()
            self.write_json(f"pace{self.shard.tag}.json", asdict(self._counted))

    @property
    def failed_path(self) -> Path:
        return self.path / f"failed{self.shard.tag}.json"

    def keep_failed(self, failed: Sequence[dict[str, Any]]) -> None:
        """Record which units kept failing; nothing is left of what an earlier start recorded."""
        if failed:
            self.write_json(self.failed_path.name, {"units": list(failed)}, indent=1)
        else:
            self.files.remove(self.failed_path.name)

    def withdraw(self) -> None:
        """Take the manifest away if no unit is in place, so that a corrected start may be another run.

        Of a shard nothing is taken, since the others go by the manifest.
        """
        if self.shard.is_whole and not self.finished_units():
            self.files.remove(self.identity_file)

    def mark_complete(self) -> None:
        """Record that nothing is missing; ArtifactError if a unit is. Only who holds the whole run may do so."""
        self.require_all()
        self.keep_pace()
        counts = {"n_rows": self.manifest.n_rows, "n_units": self.n_units, "pace": asdict(self.pace)}
        self.write_json("complete.json", counts)
        for path in self.path.glob("pace*.json"):
            self.files.remove(path.name)
        remove_stale(self.path)

    def _pace_path(self, shard: Shard) -> Path:
        path = self.path / f"pace{shard.tag}.json"
        return path if path.exists() or not shard.is_whole else self.path / "complete.json"

    # Reading

    def read_scores(self, columns: Sequence[str] | None = None, *, encoded: bool = False) -> pa.Table:
        """All scores in the order of the input; ArtifactError unless every row is there exactly once.

        encoded: give the texts that repeat (status, source, question, answer type) as dictionaries, which reads and
            groups millions of rows some times faster.
        """
        self.require_all()
        schema = self.schema
        if unknown := sorted(set(columns or ()) - set(schema.names)):
            raise ArtifactError(f"{self.location} has no column {unknown[0]!r}; it has {', '.join(schema.names)}")
        wanted = list(dict.fromkeys(["row", *(columns or schema.names)]))
        table = self.read_files(self.unit_files(), wanted, **reading_options(schema, encoded))
        self.require_rows(table, range(self.manifest.n_rows))
        return table if columns is None else table.select(list(columns))

    def read_failed(self) -> pa.Table:
        """`row`, `reason_code` and `reason` of the failed rows that this process's shard has in place, in order."""
        own = [file for file in self.unit_files() if file.is_merged or self.shard.owns(file.first)]
        columns, options = ["row", "reason_code", "reason"], reading_options(self.schema, encoded=False)
        return self.read_files(own, columns, ds.field("status") == "failed", **options).sort_by("row")

    def read_side(self, table: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """A side table, units in order; None where the run has none. ArtifactError if it can't be read."""
        files = self.unit_files(table)
        return self.read_files(files, columns) if files else None


def merge_run(
    location: str | Path,
    on_progress: Callable[[int, int], None] = lambda n_done, n_rows: None,
    *,
    max_bytes: int = MAX_BYTES,
    max_units: int = MAX_UNITS,
) -> RunFolder:
    """Check that every row is there exactly once, put the unit files into few large ones, and mark the run complete.

    Killed at any moment, a merge loses nothing and can start again.
    on_progress gets how many rows are merged and how many there are; where rows have several tables, each counts for
    its share.
    Raises ArtifactError where rows are missing or doubled, and where a process still works on the run.
    """
    with RunFolder.start(location, RunFolder.open(location).manifest) as run:
        run.require_all()
        side = [name for name in run.files.folders() if name != run.main_table and run.unit_files(name)]
        n_done = 0
        for table in (run.main_table, *side):
            for n_rows in run.merge_files(table, max_bytes, max_units):
                n_done += n_rows
                on_progress(n_done // (1 + len(side)), run.manifest.n_rows)
        run.read_scores(["row"])
        run.mark_complete()
        return run
