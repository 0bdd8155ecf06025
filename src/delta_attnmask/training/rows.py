"""Which rows of a data set can be trained on: every row read, encoded once, and kept with what was found."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import ArtifactError, DataError, RowError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.faults import generalise
from delta_attnmask.records import Record
from delta_attnmask.storage import write_atomically, write_text_atomically

ROWS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input, from 0
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # SHA-256 of the row's own bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "skipped"
        pa.field("reason", pa.string(), nullable=False),  # empty if ok
        pa.field("inputs", pa.string(), nullable=False),  # names of what the model is given; a batch needs the same
        pa.field("n_tokens", pa.int32()),
        pa.field("n_image_tokens", pa.int32()),
        pa.field("n_answer_tokens", pa.int32()),
    ]
)
_ROWS_AT_ONCE = 64


def find_usable_rows(
    dataset: Dataset, encoder: Encoder, n_workers: int, on_row: Callable[[int, int, int], None]
) -> pa.Table:
    """Encode every row once and say what came of it, in `ROWS_SCHEMA`.

    on_row: told rows done, rows in all and rows skipped. Raises DataError where no row can be used.
    """
    lines: list[dict[str, Any]] = []
    n_skipped = 0
    with ThreadPoolExecutor(n_workers, thread_name_prefix="encode") as pool:
        for start in range(0, dataset.n_rows, _ROWS_AT_ONCE):
            records = list(dataset.records(start, start + _ROWS_AT_ONCE))
            for line in pool.map(lambda record: _describe(record, dataset, encoder), records):
                lines.append(line)
                n_skipped += line["status"] == "skipped"
            on_row(len(lines), dataset.n_rows, n_skipped)
    if n_skipped == len(lines):
        raise DataError(f"{dataset.path}: no row can be trained on; the first one: {lines[0]['reason']}")
    return pa.Table.from_pylist(lines, schema=ROWS_SCHEMA)


def encode_row(record: Record, dataset: Dataset, encoder: Encoder) -> EncodedSample:
    """Load a record's images and encode it; RowError with the reason where that isn't possible."""
    if record.error:
        raise record.error
    return encoder.encode(record, dataset.load_images(record.images))


def _describe(record: Record, dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
    line = {"row": record.row, "id": record.id, "key": record.key, "source": record.source, "inputs": ""}
    try:
        sample = encode_row(record, dataset, encoder)
    except RowError as error:
        return line | {"status": "skipped", "reason": str(error)}
    counts = {name: getattr(sample, name) for name in ("n_tokens", "n_image_tokens", "n_answer_tokens")}
    return line | {"status": "ok", "reason": "", "inputs": " ".join(sorted(sample.inputs))} | counts


def write_rows(table: pa.Table, folder: Path) -> None:
    """FOLDER/rows.parquet, and FOLDER/skipped.jsonl with the row, id and reason of each skipped row."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in _skipped(table)]
    write_text_atomically(folder / "skipped.jsonl", "".join(lines))
    with write_atomically(folder / "rows.parquet") as file:
        pq.write_table(table, file, compression="zstd")


def read_rows(folder: Path) -> pa.Table | None:
    """What `write_rows` wrote; None if it hasn't yet."""
    path = folder / "rows.parquet"
    if not path.exists():
        return None
    try:
        return pq.read_table(path, schema=ROWS_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} can't be read: {error}; remove it, and it is made anew") from error


def count_reasons(table: pa.Table) -> dict[str, int]:
    """How many rows were skipped for each reason, but for names and numbers; the most frequent first."""
    counts: dict[str, int] = {}
    for line in _skipped(table):
        reason = generalise(line["reason"])
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _skipped(table: pa.Table) -> Iterator[dict[str, Any]]:
    chosen = table.filter(pc.equal(table["status"], "skipped")).select(["row", "id", "reason"])
    yield from chosen.to_pylist()
