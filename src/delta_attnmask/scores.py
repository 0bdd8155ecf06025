"""One score for each input row, and how it is stored. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

Status = Literal["ok", "failed"]

SCORE_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("id", pa.string(), nullable=False),  # as written; may repeat or be empty
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "failed"
        pa.field("reason", pa.string(), nullable=False),  # empty if ok
        pa.field("reason_code", pa.string(), nullable=False),  # the kind of the reason (`ReasonCode`); empty if ok
        pa.field("question", pa.string(), nullable=False),  # what the user asks first, normalised and cut
        pa.field("answer_type", pa.string(), nullable=False),  # form of the first answer, such as "yes/no"
        pa.field("n_turns", pa.int32(), nullable=False),  # assistant turns
        pa.field("n_images", pa.int32(), nullable=False),
        pa.field("n_tokens", pa.int32()),
        pa.field("n_image_tokens", pa.int32()),
        pa.field("n_answer_tokens", pa.int32()),
        pa.field("loss", pa.float32()),  # nats per answer token
        pa.field("masked_loss", pa.float32()),
        pa.field("delta", pa.float32()),  # masked_loss - loss
    ]
)

RANKING = "score"  # what ranks the rows, beside the stored columns where scores are read or exported
REPEATING = ("source", "status", "question", "answer_type")  # texts that many rows share


@dataclass(frozen=True, kw_only=True)
class SampleScore:
    """The score of one row; the numbers are None where the row failed.

    extra: columns of rival scores. own: the row's values of the run's own columns, in their order.
    """

    row: int
    id: str
    key: str
    source: str
    status: Status
    reason: str = ""
    reason_code: str = ""
    question: str = ""
    answer_type: str = ""
    n_turns: int = 0
    n_images: int = 0
    n_tokens: int | None = None
    n_image_tokens: int | None = None
    n_answer_tokens: int | None = None
    loss: float | None = None
    masked_loss: float | None = None
    delta: float | None = None
    extra: dict[str, float | None] = field(default_factory=dict)
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitReport:
    """A unit whose scores are in place. check: what the self-check found in the model, if it was this unit's turn."""

    unit: int
    n_rows: int
    n_failed: int
    check: str = ""


def score_schema(extra_columns: Sequence[str] = (), own_columns: Sequence[str] = ()) -> pa.Schema:
    """The schema of a run that also holds these rival scores, and these columns of the data itself."""
    own = [pa.field(name, pa.string(), nullable=False) for name in own_columns]
    return pa.schema([*SCORE_SCHEMA, *(pa.field(name, pa.float32()) for name in extra_columns), *own])


def score_table(
    scores: Sequence[SampleScore], extra_columns: Sequence[str] = (), own_columns: Sequence[str] = ()
) -> pa.Table:
    """The scores as one table, in the order given; a rival score that a row lacks is null."""
    columns = {name: [getattr(score, name) for score in scores] for name in SCORE_SCHEMA.names}
    columns |= {name: [score.extra.get(name) for score in scores] for name in extra_columns}
    columns |= {name: [score.own[idx] for score in scores] for idx, name in enumerate(own_columns)}
    return pa.table(columns, schema=score_schema(extra_columns, own_columns))


def embedding_table(embeddings: Mapping[int, NDArray[np.float16]], width: int) -> pa.Table:
    """One vector for each sample: columns `row` and `embedding`, a list of `width` numbers, in the order of the rows.

    Without rows it has the same columns, so that it can follow other units'.
    """
    rows = sorted(embeddings)
    flat = np.concatenate([embeddings[row] for row in rows]) if rows else np.zeros(0, dtype=np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), width)
    return pa.table({"row": pa.array(rows, pa.int64()), "embedding": vectors})


def reading_options(schema: pa.Schema, encoded: bool) -> dict[str, Any]:
    """How tables of scores are read, as arguments of pyarrow's `dataset`.

    encoded: texts that repeat come as dictionaries.
    """
    repeating = [name for name in REPEATING if encoded]
    for name in repeating:
        dictionary = pa.dictionary(pa.int32(), pa.string())
        schema = schema.set(schema.get_field_index(name), pa.field(name, dictionary, nullable=False))
    options = ds.ParquetReadOptions(dictionary_columns=set(repeating))
    return {"schema": schema, "format": ds.ParquetFileFormat(read_options=options)}
