"""The folder of one training. No torch here.

OUT/manifest.json    what is trained on what, and how: a second start must agree with it
OUT/rows.parquet     every input row, and whether it is trained on
OUT/metrics.jsonl    loss, learning rate and the like, one JSON object a line
OUT/checkpoints/     the last two
OUT/lock             held by the process that trains
OUT/train.json       written at the end: the manifest, and the outcome of the training
OUT/…                in the end the model and its processor, or the adapter
"""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.folders import Folder
from delta_attnmask.manifest import Manifest

ROWS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "skipped"
        pa.field("reason_code", pa.string(), nullable=False),  # the kind of the reason (`ReasonCode`); empty if ok
        pa.field("reason", pa.string(), nullable=False),  # empty if ok
        pa.field("inputs", pa.string(), nullable=False),  # names of what the model is given; a batch needs the same
    ]
)
_LAST_FILE = "trainer_state.json"  # what the Trainer writes into a checkpoint last


class TrainingFolder(Folder):
    """The folder of one training, on this machine: checkpoints are written in place."""

    kind = "training"
    command = "train"
    takes_urls = False

    @classmethod
    def parse(cls, text: str) -> Manifest:
        manifest = Manifest.from_json(text)
        if "learning_rate" not in manifest.settings:
            raise ValueError("it is of a run, not of a training")
        return manifest

    @property
    def results(self) -> dict[str, Any] | None:
        """The content of `train.json`; None before the training is over."""
        path = self.path / "train.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} can't be read: {error}") from error

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; what a killed process left half-written is removed."""
        found = {int(folder.name.rpartition("-")[2]): folder for folder in self.checkpoints.glob("checkpoint-*")}
        for step in sorted(found, reverse=True):
            if (found[step] / _LAST_FILE).exists():
                return found[step]
            shutil.rmtree(found[step])
        return None

    def read_rows(self) -> pa.Table | None:
        """What an earlier start found of the rows, in `ROWS_SCHEMA`; None if it didn't get that far."""
        path = self.path / "rows.parquet"
        try:
            return pq.read_table(path, schema=ROWS_SCHEMA) if path.exists() else None
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{path} can't be read: {error}; remove it to have it made again") from error

    def write_rows(self, table: pa.Table) -> None:
        with self.files.write("rows.parquet") as file:
            pq.write_table(table, file, compression="zstd")

    def complete(self, **results: Any) -> None:
        """Record that the training is over and what came of it; the checkpoints are needed no more."""
        self.write_json("train.json", asdict(self.manifest) | results, indent=2)
        for checkpoint in self.checkpoints.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
        (self.checkpoints / "README.md").unlink(missing_ok=True)  # the Trainer's card of a model that isn't there
        with suppress(OSError):  # what `report_to` wrote there stays
            self.checkpoints.rmdir()
