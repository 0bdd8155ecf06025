"""The data set with its scores beside each row, as parquet or as a folder of `datasets`. No torch here."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.files import (
    DATA_ENDINGS,
    HF_KEY,
    IMAGES,
    MESSAGES,
    describe_schema,
    open_table,
    read_features,
    write_batches,
)
from delta_attnmask.reading.columns import Columns
from delta_attnmask.reading.messages import write_typed
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.storage import write_text_atomically

PREFIX = "score_"
_ROWS = 256
_ARROW_FILE = "data-00000-of-00001.arrow"
_ROW_COLUMNS = pa.schema(
    {"id": pa.string(), "source": pa.string(), "images": IMAGES, "messages": MESSAGES, "raw": pa.string()}
)


def export_scores(dataset: FileRows, run: RunFolder, out: Path) -> int:
    """Write every row of the data, failed ones too, with all columns of the run's scores; return how many.

    Parquet and arrow keep their own columns. Other rows get `messages`, `images` and `raw`, the row's own JSON.
    out: a file that ends in .parquet, or a folder for `datasets.load_from_disk`.
    """
    if out.suffix.lower() in DATA_ENDINGS - {".parquet"}:
        raise SettingsError(f"out={out}: expected a name that ends in .parquet, or a folder's")
    if out.exists() and out.is_dir() and any(out.iterdir()):
        raise SettingsError(f"out={out}: is a folder that isn't empty; choose another")
    scores = run.read_scores()
    scores = scores.rename_columns([f"{PREFIX}{name}" for name in scores.column_names])
    schema = _own_schema(dataset)
    features = read_features(schema or pa.schema([]))
    if schema is not None and (taken := set(schema.names) & set(scores.column_names)):
        raise SettingsError(f"the data has the columns {', '.join(sorted(taken))} already; drop them first")
    joined = describe_schema(_append(schema or _ROW_COLUMNS, scores.schema), features)
    batches = _own_batches(dataset) if schema is not None else _row_batches(dataset)
    file = out if out.suffix == ".parquet" else out / _ARROW_FILE
    with open_table(file, joined, "parquet" if file == out else "stream") as writer:
        write_batches(writer, _join(batches, scores, joined), joined)
    if file != out:
        _write_state(out, joined)
    return int(scores.num_rows)


def _own_schema(dataset: FileRows) -> pa.Schema | None:
    """The columns of the data's files, if they are tables that all have the same."""
    schemas = [part.container.schema for part in dataset.parts if isinstance(part.container, Columns)]
    return schemas[0] if len(schemas) == len(dataset.parts) and all(schemas[0].equals(one) for one in schemas) else None


def _append(schema: pa.Schema, others: pa.Schema) -> pa.Schema:
    for field in others:
        schema = schema.append(pa.field(field.name, field.type))
    return schema


def _own_batches(dataset: FileRows) -> Iterator[pa.RecordBatch]:
    left = dataset.n_rows
    for part in dataset.parts:
        if isinstance(part.container, Columns):
            for _, batch in part.container.batches(0, left):
                left -= batch.num_rows
                yield batch


def _row_batches(dataset: FileRows) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for record in dataset:
        rows.append(_describe(record, dataset))
        if len(rows) == _ROWS:
            yield pa.RecordBatch.from_pylist(rows, _ROW_COLUMNS)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, _ROW_COLUMNS)


def _describe(record: Record, dataset: FileRows) -> dict[str, Any]:
    return {
        "id": record.id,
        "source": record.source,
        "images": [_describe_image(reference, dataset) for reference in record.images],
        "messages": [write_typed(turn) for turn in record.turns],
        "raw": record.raw.decode(errors="replace") or None,
    }


def _describe_image(ref: ImageRef, dataset: FileRows) -> dict[str, Any]:
    """The bytes of an image that stands in the data, the path of one that has a file."""
    if not ref.path:
        return {"bytes": dataset.read_image_bytes(ref), "path": None}
    root = dataset.part_of(ref).images_root
    return {"bytes": None, "path": f"{root}/{ref.path}" if root else ref.path}


def _join(batches: Iterator[pa.RecordBatch], scores: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in batches:
        beside = scores.slice(first, batch.num_rows).combine_chunks()
        first += batch.num_rows
        columns = [*batch.columns, *(column.combine_chunks() for column in beside.columns)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _write_state(out: Path, schema: pa.Schema) -> None:
    """What `datasets.load_from_disk` wants beside the arrow file."""
    features = json.loads(schema.metadata[HF_KEY])["info"]["features"]
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": _ARROW_FILE}],
        "_fingerprint": secrets.token_hex(8),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_text_atomically(out / "dataset_info.json", json.dumps(info, indent=2) + "\n")
    write_text_atomically(out / "state.json", json.dumps(state, indent=2) + "\n")
