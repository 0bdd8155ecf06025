"""Parquet and arrow files as containers of rows, batch by batch. pyarrow alone; no torch, no `datasets`.

A row's value holds what its columns hold; bytes are taken out of it, and a reference to the embedded image takes their
place.
"""

import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.errors import DataError, ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow, find_images, hash_values, is_image, open_input, with_references
from delta_attnmask.records import ImageRef

_BATCH_BYTES = 4 << 20  # about what a batch may take; its rows are counted from the file's own sizes
_MAX_BATCH_ROWS = 1024
_UNPACKED_BYTES = 64 << 20  # about what a batch may take where a group holds one long value for all its rows
_FEW_ROWS = 16
_BATCHES_KEPT = 8  # of those that images are read from, for readers side by side
_READ_BYTES = 1 << 20
_MAX_UNPACKED = 256 << 20  # of an arrow file, beyond its own size
MAX_ROW_BYTES = 256 << 20


class Columns(ABC):
    """A file of groups of rows, each of which can be read alone; the container for every such file."""

    n_to_detect = 8
    kind = ""
    endings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._kept = deque[tuple[int, pa.RecordBatch]](maxlen=_BATCHES_KEPT)
        self._ahead, self._at = self.batches(), 0  # what images are read from, and the first row that is ahead
        _ = self.starts  # a broken file is refused at once

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each group, and the number of all rows."""
        with _as_data_error(self.path):
            counts = self._count_groups()
        if any(n_rows < 0 for n_rows in counts):
            raise DataError(f"{self.path} is broken: a group of {min(counts)} rows")
        return [0, *accumulate(counts)]

    @property
    def n_rows(self) -> int:
        return self.starts[-1]

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns, with what the file's metadata say of them."""

    @abstractmethod
    def _count_groups(self) -> list[int]:
        """The number of rows in each group."""

    @abstractmethod
    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        """The rows of a group, in batches that fit into memory and were found to be whole."""

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches that hold the rows from `start` to `stop`, each with its first row; the outer ones are cut."""
        stop = self.n_rows if stop is None else min(stop, self.n_rows)
        group = bisect_right(self.starts, start) - 1
        while start < stop:
            first = self.starts[group]
            with _as_data_error(self.path):
                for batch in self._read_group(group):
                    low, high = max(start - first, 0), min(stop - first, batch.num_rows)
                    if low < high:
                        yield first + low, batch.slice(low, high - low)
                    first += batch.num_rows
                    if first >= stop:
                        return
            group += 1
            if first != self.starts[group]:
                raise DataError(f"{self.path} is broken: {first} rows before group {group}, not {self.starts[group]}")

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        for first, batch in self.batches(start, stop):
            for n, (value, error) in enumerate(read_values(batch)):
                yield make_row(first + n, value, error)

    def read_image(self, row: int, number: int) -> bytes:
        found = find_images(next(read_values(self._read_row(row)))[0]) if row < self.n_rows else []
        if number >= len(found):
            raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: the row has {len(found)} images")
        return bytes(found[number])

    def _read_row(self, row: int) -> pa.RecordBatch:
        """One row from anywhere; cheapest are those that follow each other."""
        with self._lock:
            for first, batch in self._kept:
                if first <= row < first + batch.num_rows:
                    return batch.slice(row - first, 1)
            group_start = self.starts[bisect_right(self.starts, row) - 1]
            if not group_start <= self._at <= row:
                self._ahead, self._at = self.batches(group_start), group_start
            for first, batch in self._ahead:
                self._at = first + batch.num_rows
                self._kept.append((first, batch))
                if row < self._at:
                    return batch.slice(row - first, 1)
        raise DataError(f"{self.path} ends before row {row}")


class ParquetFile(Columns):
    kind = "parquet"
    endings = (".parquet",)

    @property
    def _file(self) -> pq.ParquetFile:
        open_input(self.path).close()  # says in our words what is wrong with the path
        return pq.ParquetFile(self.path, buffer_size=_READ_BYTES)

    @property
    def schema(self) -> pa.Schema:
        with _as_data_error(self.path), self._file as file:
            return file.schema_arrow

    def _count_groups(self) -> list[int]:
        with self._file as file:
            return [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]

    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        """Of columns the footer may say what ends the process when pyarrow is asked for it; only the group is asked."""
        with self._file as file:
            size = file.metadata.row_group(group)
            n_bytes = max(size.total_byte_size, 1)
            even, safe = _BATCH_BYTES * size.num_rows // n_bytes, max(_FEW_ROWS, _UNPACKED_BYTES // n_bytes)
            n_rows = max(1, min(_MAX_BATCH_ROWS, even, safe))
            for batch in file.iter_batches(batch_size=n_rows, row_groups=[group], use_threads=False):
                batch.validate(full=True)
                yield batch


class ArrowFile(Columns):
    """Arrow's file format, also known as Feather 2, or its stream format, in which `datasets` saves to disk.

    It is mapped, so only what is read takes memory; one that is packed is refused if that takes much.
    """

    kind = "an arrow file"
    endings = (".arrow", ".feather")

    @cached_property
    def is_stream(self) -> bool:
        with open_input(self.path) as file:
            return file.read(6) != b"ARROW1"

    @cached_property
    def _reader(self) -> pa.RecordBatchStreamReader | pa.RecordBatchFileReader:
        with _as_data_error(self.path):
            source = pa.memory_map(str(self.path))
            return pa.ipc.open_stream(source) if self.is_stream else pa.ipc.open_file(source)

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    @cached_property
    def _groups(self) -> list[pa.RecordBatch]:
        reader, found, n_bytes = self._reader, list[pa.RecordBatch](), 0
        for batch in reader if self.is_stream else map(reader.get_batch, range(reader.num_record_batches)):
            found.append(batch)
            n_bytes += batch.get_total_buffer_size()
            if n_bytes > self.path.stat().st_size + _MAX_UNPACKED:
                raise DataError(f"{self.path} is compressed and large; save it without compression, or as parquet")
        return found

    def _count_groups(self) -> list[int]:
        return [batch.num_rows for batch in self._groups]

    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        batch = self._groups[group]
        batch.validate(full=True)  # before anything is asked of it: offsets that lead astray would end the process
        n_rows = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, n_rows):
            yield batch.slice(start, n_rows)


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    """What pyarrow finds wrong with a file becomes one DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} can't be read: {what}") from error


def read_values(batch: pa.RecordBatch) -> Iterator[tuple[Any, RowError | None]]:
    """Each row as plain Python values, or None and the reason why it can't be one."""
    decode = _decoder(pa.struct(batch.schema))
    for n in range(batch.num_rows):
        row = batch.slice(n, 1)
        try:
            if row.nbytes > MAX_ROW_BYTES:
                yield None, RowError(ReasonCode.TOO_LONG, f"longer than {MAX_ROW_BYTES} bytes")
            else:
                yield decode(row.to_pylist()[0]), None
        except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
            yield None, RowError(ReasonCode.BAD_VALUE, f"a value that Python can't hold: {error}")


def _decoder(kind: pa.DataType) -> Callable[[Any], Any]:
    """Turns JSON text into its value: `datasets` stores columns of mixed types that way."""
    if isinstance(kind, pa.JsonType):
        return lambda text: text if text is None else json.loads(text)
    if pa.types.is_struct(kind):
        fields = {field.name: decode for field in kind if (decode := _decoder(field.type)) is not _same}
        return (lambda value: value and value | {k: fields[k](value[k]) for k in fields}) if fields else _same
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        decode = _decoder(kind.value_type)
        return _same if decode is _same else lambda values: values and [decode(value) for value in values]
    return _same


def _same(value: Any) -> Any:
    return value


def make_row(row: int, value: Any, error: RowError | None, is_image: Callable[[object], bool] = is_image) -> RawRow:
    """The row, with a reference in place of each image, numbered in the order of its columns."""
    numbers = count()
    marked = with_references(value, lambda image: ImageRef(place=(row, next(numbers))), is_image)
    return RawRow(row, 0, b"", marked, error, hash_values(value))
