"""The folder of a scoring run: scores by unit, how fast they came, and the merge of its files. No torch here.

Beside what every folder has (see `folders`):

RUN/scores/…         one row for each input row; side tables are beside it, in folders of their names
RUN/pace.json        rows scored so far and the seconds that took, over all starts that weren't killed
RUN/failed.json      units that kept failing at the last start, with their reasons
RUN/complete.json    written when no unit is missing

Shards have `pace` and `failed` files of their own, such as `pace-0-of-8.json`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.dataset as ds

from delta_attnmask.errors import ArtifactError
from delta_attnmask.folders import UnitFolder
from delta_attnmask.scores import SampleScore, reading_options, score_schema, score_table
from delta_attnmask.storage import remove_stale


@dataclass(frozen=True)
class Pace:
    """How long scoring took: wall-clock seconds, for so many rows.

    Summed over all starts but those that were killed. Of shards, which run side by side, the slowest counts.
    """

    n_rows: int = 0
    seconds: float = 0.0


class RunFolder(UnitFolder):
    """The folder of one run. `open` reads it; `start` holds it for writing; `join` writes for its holder."""

    kind = "run"
    command = "score"
    early_files: ClassVar[frozenset[str]] = frozenset({"calibration.json", "calibrating", "rounds"})
    main_table = "scores"

    @property
    def schema(self) -> pa.Schema:
        """The columns of the scores."""
        return score_schema(self.manifest.extra_columns, self.own_columns)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns of the data that are kept beside the scores, for quotas."""
        return tuple(self.manifest.settings.get("columns", ()))

    @property
    def is_complete(self) -> bool:
        return "complete.json" in self.files.names()

    def write_unit(self, unit: int, scores: Sequence[SampleScore], **side_tables: pa.Table) -> None:
        """Put a unit's scores in place, whole or not at all; side tables go first, into folders of their names.

        The scores must be those of the unit's rows, each once; their order doesn't matter.
        """
        ordered = sorted(scores, key=lambda score: score.row)
        if [score.row for score in ordered] != list(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs exactly the rows {self.unit_rows(unit)}, got {len(ordered)} rows")
        for name, table in side_tables.items():
            self.write_table(table, unit, name)
        self.write_table(score_table(ordered, self.manifest.extra_columns, self.own_columns), unit)

    def write_all(self, scores: pa.Table, side_tables: Mapping[str, pa.Table]) -> None:
        """Put the scores of all rows in place from one table, and mark the run complete.

        The table must have the run's columns, and every row once and in order.
        """
        if set(scores.column_names) != set(self.schema.names):
            raise ArtifactError(f"expected the columns {self.schema.names}, got {scores.column_names}")
        self.require_rows(scores, range(self.manifest.n_rows))
        if self.n_units:
            for name, table in side_tables.items():
                self.write_table(table, 0, name, self.n_units - 1)
            self.write_table(scores.select(self.schema.names).cast(self.schema), 0, last=self.n_units - 1)
        self.mark_complete()

    # How far the run is

    @property
    def pace(self) -> Pace:
        """How long the units took that are in place; no rows if that isn't known."""
        found = {name: self._read_pace(name) for name in self.files.names() if name.startswith("pace")}
        alone = found.pop("pace.json", Pace())
        seconds = alone.seconds + max((pace.seconds for pace in found.values()), default=0.0)
        return Pace(alone.n_rows + sum(pace.n_rows for pace in found.values()), round(seconds, 3))

    def add_pace(self, n_rows: int, seconds: float) -> None:
        """Count the rows that a start did, and what they took."""
        if n_rows:
            before = self._read_pace(name := f"pace{self.shard.tag}.json")
            self.write_json(name, {"n_rows": before.n_rows + n_rows, "seconds": round(before.seconds + seconds, 3)})

    def _read_pace(self, name: str) -> Pace:
        with suppress(OSError, ValueError, TypeError):
            return Pace(**json.loads(self.files.read(name) or b""))
        return Pace()

    def keep_failed(self, failed: Sequence[dict[str, Any]]) -> None:
        """Record which units kept failing; nothing is left of what an earlier start recorded."""
        name = f"failed{self.shard.tag}.json"
        if failed:
            self.write_json(name, {"units": list(failed)}, indent=1)
        else:
            self.files.remove(name)

    def withdraw(self) -> None:
        """Take the manifest away if no unit is in place, so that a corrected start may be another run.

        Of a shard nothing is taken, since the others go by the manifest.
        """
        if self.shard.is_whole and not self.finished_units():
            self.files.remove(self.identity_file)

    def mark_complete(self) -> None:
        """Record that nothing is missing; ArtifactError if a unit is. Only who holds the whole run may do so."""
        self.require_all()
        counts = {"n_rows": self.manifest.n_rows, "n_units": self.n_units, "pace": asdict(self.pace)}
        self.write_json("complete.json", counts)
        if self.files.is_local:
            remove_stale(self.path)

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


def merge_run(location: str | Path, **limits: int) -> RunFolder:
    """Check that every row is there exactly once, put the unit files into few large ones, and mark the run complete.

    Killed at any moment, a merge loses nothing and can start again. limits: of `UnitFolder.merge_files`.
    Raises ArtifactError where rows are missing or doubled, and where a process still works on the run.
    """
    with RunFolder.start(location, RunFolder.open(location).manifest) as run:
        run.require_all()
        for table in ("scores", "sweep", "embeddings"):
            run.merge_files(table, **limits)
        run.read_scores(["row"])
        run.mark_complete()
        return run
