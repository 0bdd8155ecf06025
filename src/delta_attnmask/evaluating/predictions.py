"""What a model answered, one line for each answer, and the folder that holds it. No torch here.

EVAL/manifest.json              which model answered which data, and how: a second start must agree with it
EVAL/predictions-00000.parquet  the answers to a unit of rows, with the seconds they took in the file's metadata
EVAL/evaluation.json            the figures; written when no unit is missing
EVAL/lock                       held by the process that writes
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import Manifest, read_manifest
from delta_attnmask.scores import Status
from delta_attnmask.storage import (
    hold_folder,
    refuse_other_files,
    remove_stale,
    write_atomically,
    write_text_atomically,
)

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("turn", pa.int32(), nullable=False),  # assistant turn of the row, from 0; -1 if the whole row failed
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("swapped_row", pa.int64()),  # the row whose images were shown instead; null: its own
        pa.field("status", pa.string(), nullable=False),  # "ok" or "failed"
        pa.field("reason", pa.string(), nullable=False),  # empty if ok
        pa.field("reason_code", pa.string(), nullable=False),  # the kind of the reason (`ReasonCode`); empty if ok
        pa.field("question", pa.string(), nullable=False),  # the user's words before the answer
        pa.field("reference", pa.string(), nullable=False),
        pa.field("prediction", pa.string()),
        pa.field("exact", pa.bool_()),  # the prediction is the reference, but for white space around it
        pa.field("normalised", pa.bool_()),  # both are the same after `normalise`
        pa.field("same_form", pa.bool_()),  # both are a yes/no, a number, a word, a sentence ...
        pa.field("loss", pa.float32()),  # of the reference, nats per token
        pa.field("n_reference_tokens", pa.int32()),  # with the token that ends the turn, if the template has one
        pa.field("n_new_tokens", pa.int32()),  # with the token that ended the turn
        pa.field("ended", pa.bool_()),  # the model ended its turn before the limit
    ]
)
_SECONDS = b"seconds"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One line of the predictions: the fields of PREDICTION_SCHEMA, None where there is no answer."""

    row: int
    id: str
    key: str
    source: str
    turn: int = -1
    swapped_row: int | None = None
    status: Status = "ok"
    reason: str = ""
    reason_code: str = ""
    question: str = ""
    reference: str = ""
    prediction: str | None = None
    exact: bool | None = None
    normalised: bool | None = None
    same_form: bool | None = None
    loss: float | None = None
    n_reference_tokens: int | None = None
    n_new_tokens: int | None = None
    ended: bool | None = None


class EvaluationFolder:
    """The folder of one evaluation. `open` reads it, `start` also writes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an evaluation for reading; ArtifactError if there is none."""
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None or "max_new_tokens" not in manifest.settings:
            raise ArtifactError(f"{path} holds no evaluation; `delta-attnmask evaluate --out` makes one")
        return cls(path, manifest)

    @classmethod
    @contextmanager
    def start(cls, path: str | Path, manifest: Manifest) -> Iterator[Self]:
        """Begin in a new or empty folder, or go on with the same evaluation; the folder is locked meanwhile.

        Raises ArtifactError, naming every difference, if the folder belongs to another one.
        """
        path = Path(path)
        with hold_folder(path):
            found = read_manifest(path)
            if found is None:
                refuse_other_files(path, "evaluation")
                write_text_atomically(path / "manifest.json", manifest.to_json())
            elif differences := found.differences(manifest):
                raise ArtifactError(
                    f"{path} holds another evaluation; choose another folder, or repeat that one's choices. "
                    f"What differs: {'; '.join(differences)}"
                )
            remove_stale(path)
            yield cls(path, found or manifest)

    def shard_path(self, unit: int) -> Path:
        return self.path / f"predictions-{unit:05d}.parquet"

    def units_to_do(self) -> list[int]:
        return [unit for unit in range(self.manifest.n_units) if not self.shard_path(unit).exists()]

    def write_unit(self, unit: int, predictions: Sequence[Prediction], seconds: float) -> None:
        """Put a unit's answers in place, whole or not at all; every row of the unit must have a line."""
        if {line.row for line in predictions} != set(self.manifest.rows_of(unit)):
            raise ArtifactError(f"unit {unit} needs lines for exactly the rows {self.manifest.rows_of(unit)}")
        ordered = sorted(predictions, key=lambda line: (line.row, line.swapped_row is not None, line.turn))
        table = pa.Table.from_pylist([asdict(line) for line in ordered], schema=PREDICTION_SCHEMA)
        with write_atomically(self.shard_path(unit)) as file:
            stamped = table.replace_schema_metadata({_SECONDS: f"{seconds:.3f}".encode()})
            pq.write_table(stamped, file, compression="zstd")

    def read(self) -> pa.Table:
        """All answers in the order of the rows; ArtifactError if a unit is missing or broken."""
        if missing := self.units_to_do():
            raise ArtifactError(
                f"{self.path} is incomplete: {len(missing)} of {self.manifest.n_units} units are missing; "
                "start the same `evaluate` command again to finish it"
            )
        shards = [self._read_shard(unit) for unit in range(self.manifest.n_units)]
        return pa.concat_tables([shard.replace_schema_metadata() for shard in shards])

    def seconds(self) -> float:
        """Wall-clock seconds that the units took, over all starts; without loading the model."""
        metadata = [pq.read_schema(self.shard_path(unit)).metadata or {} for unit in range(self.manifest.n_units)]
        return round(sum(float(one.get(_SECONDS, 0)) for one in metadata), 3)

    def write_report(self, report: dict[str, Any]) -> None:
        write_text_atomically(self.path / "evaluation.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")

    def _read_shard(self, unit: int) -> pa.Table:
        path = self.shard_path(unit)
        try:
            table = pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{path} can't be read: {error}; delete it and evaluate again") from error
        if not table.schema.equals(PREDICTION_SCHEMA):
            raise ArtifactError(f"{path} was written by another version; delete it and evaluate again")
        return table
