"""The data set with its scores beside each row, as parquet. No torch here."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.files import IMAGES, IMAGES_METADATA, MESSAGES, to_batches, write_table
from delta_attnmask.reading.columns import Columns
from delta_attnmask.reading.messages import write_typed
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import with_ranking
from delta_attnmask.storage import claim_output

PREFIX = "score_"
_ROW_COLUMNS = pa.schema(
    {"id": pa.string(), "source": pa.string(), "images": IMAGES, "messages": MESSAGES, "raw": pa.string()},
    IMAGES_METADATA,
)


def export_scores(dataset: FileRows, run: RunFolder, out: Path, *, force: bool = False) -> int:
    """Write every row of the data, failed ones too, with all columns of the run's scores and the
    ranking column `score`, each name after `score_`; return how many.

    Parquet and arrow keep their own columns. Other rows get `messages`, `images` and `raw`, the row's own JSON.
    out: a file that ends in .parquet. force: replace one that is there.
    """
    claim_output(out, (".parquet",), [*dataset.inputs, run.path], force=force)
    scores = with_ranking(run.read_scores(), str(run.manifest.settings.get("form", "delta")))
    scores = scores.rename_columns([f"{PREFIX}{name}" for name in scores.column_names])
    schemas = [part.container.schema for part in dataset.parts if isinstance(part.container, Columns)]
    is_table = len(schemas) == len(dataset.parts) and all(schemas[0].equals(schema) for schema in schemas)
    schema = schemas[0] if is_table else _ROW_COLUMNS
    if taken := set(schema.names) & set(scores.column_names):
        raise SettingsError(f"the data has the columns {', '.join(sorted(taken))} already; drop them first")
    batches = _own_batches(dataset) if is_table else to_batches((_describe(row, dataset) for row in dataset), schema)
    for field in scores.schema:
        schema = schema.append(pa.field(field.name, field.type))
    write_table(out, schema, _join(batches, scores, schema))
    return int(scores.num_rows)


def _own_batches(dataset: FileRows) -> Iterator[pa.RecordBatch]:
    for part, n_rows in zip(dataset.parts, dataset.count_rows(), strict=True):
        if isinstance(part.container, Columns):
            for _, batch in part.container.batches(0, n_rows):
                yield batch


def _describe(record: Record, dataset: FileRows) -> dict[str, Any]:
    return {
        "id": record.id,
        "source": record.source,
        "images": [_describe_image(reference, dataset) for reference in record.images],
        "messages": [write_typed(turn) for turn in record.turns],
        "raw": record.raw.decode(errors="replace") or None,
    }


def _describe_image(ref: ImageRef, dataset: FileRows) -> dict[str, Any]:
    """The bytes of an image inside the data, the path of one that has a file."""
    if not ref.path:
        return {"bytes": dataset.read_image_bytes(ref), "path": None}
    root = dataset.part_of(ref).images_root
    return {"bytes": None, "path": f"{root}/{ref.path}" if root else ref.path}


def _join(batches: Iterable[pa.RecordBatch], scores: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in batches:
        beside = scores.slice(first, batch.num_rows).combine_chunks()
        first += batch.num_rows
        columns = [*batch.columns, *(column.combine_chunks() for column in beside.columns)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
