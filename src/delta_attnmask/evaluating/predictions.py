"""What a model answered, one line for each answer, and the folder that holds it. No torch here.

EVAL/manifest.json              which model answered which data, and how: a second start must agree with it
EVAL/predictions-00000.parquet  the answers to a unit of rows
EVAL/evaluation.json            the figures; written when no unit is missing
EVAL/lock                       held by the process that writes
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from delta_attnmask.errors import ArtifactError
from delta_attnmask.folders import UnitFolder
from delta_attnmask.manifest import Manifest

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("turn", pa.int32(), nullable=False),  # assistant turn of the row, from 0; -1 if the whole row failed
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # hash of the row's first image; empty where it has none
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

Line = dict[str, Any]  # by the names of the schema; those that are missing are as below, or null
_DEFAULTS: Line = {
    "turn": -1,
    "image": "",
    "status": "ok",
    "reason": "",
    "reason_code": "",
    "question": "",
    "reference": "",
}


class EvaluationFolder(UnitFolder):
    """The folder of one evaluation. `open` reads it, `start` also writes."""

    kind = "evaluation"
    command = "evaluate"
    main_table = ""  # the unit files are in the folder itself
    unit_name = "predictions"
    schema = PREDICTION_SCHEMA

    @classmethod
    def parse(cls, text: str) -> Manifest:
        manifest = Manifest.from_json(text)
        if "max_new_tokens" not in manifest.settings:
            raise ValueError("it is of a run, not of an evaluation")
        return manifest

    def write_unit(self, unit: int, lines: Sequence[Line]) -> None:
        """Put a unit's answers in place, whole or not at all; every row of the unit must have a line."""
        if {line["row"] for line in lines} != set(self.unit_rows(unit)):
            raise ArtifactError(f"unit {unit} needs lines for exactly the rows {self.unit_rows(unit)}")
        whole = [_DEFAULTS | line for line in lines]
        whole.sort(key=lambda line: (line["row"], line.get("swapped_row") is not None, line["turn"]))
        self.write_table(pa.Table.from_pylist(whole, schema=PREDICTION_SCHEMA), unit)

    def read(self) -> pa.Table:
        """All answers in the order of the rows; ArtifactError if a unit is missing or broken."""
        self.require_all()
        return self.read_files(self.unit_files(), schema=self.schema)
