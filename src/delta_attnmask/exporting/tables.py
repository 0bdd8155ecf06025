"""Kept rows of parquet and arrow files: the same rows under the same schema, its metadata included. No torch here."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.reading.columns import ArrowFile, Columns, ParquetFile
from delta_attnmask.storage import write_atomically

_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1000


class BatchWriter(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...


def copy_columns(container: Columns, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows, in the order given, into a file of the same kind.

    In the order of the input memory holds one row group; in another order it holds all kept rows.
    """
    kept = _pick(container, np.sort(rows))
    if not np.array_equal(rows, np.sort(rows)):
        table = pa.Table.from_batches(kept, container.schema)
        kept = table.take(np.argsort(np.argsort(rows))).to_batches()
    with _open_alike(container, out) as writer:
        write_batches(writer, kept, container.schema)


@contextmanager
def _open_alike(container: Columns, out: Path) -> Iterator[BatchWriter]:
    """A writer of the same kind of file, packed in the same way."""
    with write_atomically(out) as file:
        if isinstance(container, ParquetFile):
            options = {
                "compression": container.compression,
                "use_compliant_nested_type": not container.names_items,
            }
            with pq.ParquetWriter(file, container.schema, **options) as writer:
                yield writer
        else:
            new = pa.ipc.new_file if isinstance(container, ArrowFile) else pa.ipc.new_stream
            with new(file, container.schema) as writer:
                yield writer


def _pick(container: Columns, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The given rows, which are in ascending order, as batches."""
    for first, batch in container.batches():
        low, high = np.searchsorted(rows, [first, first + batch.num_rows])
        if low < high:
            yield batch.take(pa.array(rows[low:high] - first))
        if high == len(rows):
            return


@contextmanager
def open_table(out: Path, schema: pa.Schema) -> Iterator[BatchWriter]:
    """A writer of parquet if `out` ends so, else of an arrow stream."""
    with write_atomically(out) as file:
        if out.suffix == ".parquet":
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                yield writer
        else:
            with pa.ipc.new_stream(file, schema) as writer:
                yield writer


def write_batches(writer: BatchWriter, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write small batches as groups that are worth reading."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(one.nbytes for one in group) >= _GROUP_BYTES or sum(one.num_rows for one in group) >= _GROUP_ROWS:
            _write_group(writer, group, schema)
            group = []
    _write_group(writer, group, schema)


def _write_group(writer: BatchWriter, group: list[pa.RecordBatch], schema: pa.Schema) -> None:
    if group:
        writer.write_batch(pa.Table.from_batches(group, schema).combine_chunks().to_batches()[0])
