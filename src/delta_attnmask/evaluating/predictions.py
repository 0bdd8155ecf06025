"""What a model answered, one line for each answer, and the folder that holds it. No torch here.

EVAL/manifest.json              which model answered which data, and how: a second start must agree with it
EVAL/predictions-00000.parquet  the answers to a unit of rows, with the seconds they took in the file's metadata
EVAL/evaluation.json            the figures; written when no unit is missing
EVAL/lock                       held by the process that writes
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import Manifest
from delta_attnmask.scores import Status
from delta_attnmask.unit_folders import UnitFolder

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


class EvaluationFolder(UnitFolder):
    """The folder of one evaluation. `open` reads it, `start` also writes."""

    kind = "evaluation"
    command = "evaluate"
    main_table = ""  # the unit files lie in the folder itself
    unit_name = "predictions"
    schema = PREDICTION_SCHEMA

    @classmethod
    def parse(cls, text: str) -> Manifest:
        manifest = Manifest.from_json(text)
        if "max_new_tokens" not in manifest.settings:
            raise ValueError("it is of a run, not of an evaluation")
        return manifest

    def write_unit(self, unit: int, predictions: Sequence[Prediction], seconds: float) -> None:
        """Put a unit's answers in place, whole or not at all; every row of the unit must have a line."""
        if {line.row for line in predictions} != set(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs lines for exactly the rows {self.unit_rows(unit)}")
        ordered = sorted(predictions, key=lambda line: (line.row, line.swapped_row is not None, line.turn))
        table = pa.Table.from_pylist([asdict(line) for line in ordered], schema=PREDICTION_SCHEMA)
        stamped = table.replace_schema_metadata({_SECONDS: f"{seconds:.3f}".encode()})
        self.write_table(stamped, unit)

    def read(self) -> pa.Table:
        """All answers in the order of the rows; ArtifactError if a unit is missing or broken."""
        self.require_all()
        return self.read_files(self.unit_files(), schema=self.schema)

    def seconds(self) -> float:
        """Wall-clock seconds that the units took, over all starts; without loading the model."""
        places = [self.files.place(file.name) for file in self.unit_files()]
        metadata = [pq.read_schema(place, filesystem=self.files.filesystem).metadata or {} for place in places]
        return round(sum(float(one.get(_SECONDS, 0)) for one in metadata), 3)

    def write_report(self, report: dict[str, Any]) -> None:
        self.write_json("evaluation.json", report, indent=2)
