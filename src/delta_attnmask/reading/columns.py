"""Parquet and arrow files as containers of rows, batch by batch. pyarrow alone; no torch, no `datasets`.

A row's value holds what its columns hold; bytes are taken out of it, and a reference to an embedded image stands in
their place.
"""

import io
import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
_UNPACKED_BYTES = 64 << 20  # that a batch may take where every row has the same long value
_CACHE_BYTES = 24 << 20  # of batches that images are read from
_READ_BYTES = 1 << 20
MAX_ROW_BYTES = 256 << 20


class Columns(ABC):
    """A file of groups of rows, each of which can be read alone; the container for every such file."""

    n_to_detect = 8
    kind = ""
    endings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cursor: _Cursor | None = None
        _ = self.starts  # a broken file is refused at once

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_cursor": None}  # open files and cached batches are left out

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
        at, group = start, bisect_right(self.starts, start) - 1
        while at < stop:
            first = self.starts[group]
            for batch in self._read_checked(group):
                low, high = max(at - first, 0), min(stop - first, batch.num_rows)
                if low < high:
                    yield first + low, batch.slice(low, high - low)
                    at = first + high
                first += batch.num_rows
                if at >= stop:
                    return
            group += 1
            if first != self.starts[group]:
                raise DataError(f"{self.path} is broken: {first} rows before group {group}, not {self.starts[group]}")

    def _read_checked(self, group: int) -> Iterator[pa.RecordBatch]:
        with _as_data_error(self.path):
            yield from self._read_group(group)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        for first, batch in self.batches(start, stop):
            for n, (value, error) in enumerate(read_values(batch)):
                yield make_row(first + n, value, error)

    def read_image(self, row: int, number: int) -> bytes:
        found: list[Any] = []
        if row < self.n_rows:
            self._cursor = self._cursor or _Cursor(self)
            value, _ = next(read_values(self._cursor.row(row)))
            found = find_images(value)
        if number >= len(found):
            raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: the row has {len(found)} images")
        return bytes(found[number])


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

    @property
    def compression(self) -> str:
        """What its first column is packed with, as a writer calls it."""
        with _as_data_error(self.path), self._file as file:
            metadata = file.metadata
            has_columns = metadata.num_row_groups and metadata.num_columns
            name = str(self._columns_of(file, 0)[0].compression) if has_columns else "ZSTD"
        return "none" if name == "UNCOMPRESSED" else name.lower()

    @property
    def names_items(self) -> bool:
        """Whether the items of its lists are called `item`, as older writers did, and not `element`."""
        with _as_data_error(self.path), self._file as file:
            return any(".list.item" in file.schema.column(n).path for n in range(file.metadata.num_columns))

    def _count_groups(self) -> list[int]:
        with self._file as file:
            return [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]

    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        with self._file as file:
            size = file.metadata.row_group(group)
            even = _BATCH_BYTES * size.num_rows // max(size.total_byte_size, 1)
            n_rows = max(
                1, min(_MAX_BATCH_ROWS, even, _UNPACKED_BYTES // _longest_value(self._columns_of(file, group)))
            )
            for batch in file.iter_batches(batch_size=n_rows, row_groups=[group], use_threads=False):
                batch.validate(full=True)
                yield batch

    def _columns_of(self, file: pq.ParquetFile, group: int) -> list[pq.ColumnChunkMetaData]:
        """What the footer says of each column of a group.

        Asked for a column that is said of wrongly, pyarrow ends the process; a reader of rows raises what is wrong. So
        one is made first, on a file of which nothing can be read.
        """
        nothing = pa.PythonFile(_Unreadable(self.path.stat().st_size), mode="r")
        reader = pq.ParquetFile(nothing, metadata=file.metadata, buffer_size=_READ_BYTES)
        with suppress(_UnreadError):
            next(reader.iter_batches(batch_size=1, row_groups=[group], use_threads=False), None)
        found = file.metadata.row_group(group)
        return [found.column(n) for n in range(found.num_columns)]


class _UnreadError(Exception):
    """A reader got as far as reading."""


class _Unreadable(io.RawIOBase):
    """Stands for a file of a known size; pyarrow asks for that by going to the end."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._n_bytes

    def tell(self) -> int:
        return self._n_bytes

    def read(self, size: int = -1) -> bytes:
        raise _UnreadError


def _longest_value(columns: list[pq.ColumnChunkMetaData]) -> int:
    """How long a value may be that stands once in a column's dictionary, and is unpacked for each row that has it."""
    return max([1, *(int(column.total_uncompressed_size) for column in columns if column.has_dictionary_page)])


class ArrowFile(Columns):
    """Arrow's file format, also known as Feather 2."""

    kind = "an arrow file"
    endings = (".arrow", ".feather")

    @property
    def schema(self) -> pa.Schema:
        with _as_data_error(self.path), pa.memory_map(str(self.path)) as source:
            return pa.ipc.open_file(source).schema

    def _count_groups(self) -> list[int]:
        open_input(self.path).close()
        with pa.memory_map(str(self.path)) as source:
            file = pa.ipc.open_file(source)
            return [file.get_batch(n).num_rows for n in range(file.num_record_batches)]

    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as source:
            yield from _cut(pa.ipc.open_file(source).get_batch(group))


class ArrowStream(Columns):
    """Arrow's stream format, in which `datasets` saves to disk; its batches are found by reading it once."""

    kind = "an arrow stream"
    endings = (".arrow",)

    @property
    def schema(self) -> pa.Schema:
        with _as_data_error(self.path), pa.memory_map(str(self.path)) as source:
            return pa.ipc.open_stream(source).schema

    @cached_property
    def _offsets(self) -> list[int]:
        return [offset for offset, _ in self._scan()]

    def _scan(self) -> Iterator[tuple[int, int]]:
        """Where each batch begins, and how many rows it has. Nothing is copied: the file is mapped."""
        open_input(self.path).close()
        with pa.memory_map(str(self.path)) as source:
            schema = pa.ipc.read_schema(source)
            while source.tell() < source.size():
                offset = source.tell()
                try:
                    message = pa.ipc.read_message(source)
                except EOFError:
                    return
                if message.type != "record batch":
                    raise DataError(f"{self.path}: a {message.type} in the arrow stream; expected record batches alone")
                yield offset, pa.ipc.read_record_batch(message, schema).num_rows

    def _count_groups(self) -> list[int]:
        return [n_rows for _, n_rows in self._scan()]

    def _read_group(self, group: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as source:
            schema = pa.ipc.read_schema(source)
            source.seek(self._offsets[group])
            yield from _cut(pa.ipc.read_record_batch(pa.ipc.read_message(source), schema))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of a batch that is mapped."""
    batch.validate(full=True)  # before anything is asked of it: offsets that lead astray would end the process
    n_rows = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, n_rows):
        yield batch.slice(start, n_rows)


class _Cursor:
    """Single rows from anywhere, cheapest one after the other; some batches stay in memory for readers side by side."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._lock = Lock()
        self._kept: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._ahead: Iterator[tuple[int, pa.RecordBatch]] = iter(())
        self._at = self._stop = 0  # the rows that are ahead

    def row(self, row: int) -> pa.RecordBatch:
        with self._lock:
            for first, batch in reversed(self._kept.items()):
                if first <= row < first + batch.num_rows:
                    return batch.slice(row - first, 1)
            return self._advance(row)

    def _advance(self, row: int) -> pa.RecordBatch:
        if not self._at <= row < self._stop:
            group = bisect_right(self._columns.starts, row) - 1
            self._at, self._stop = self._columns.starts[group], self._columns.n_rows
            self._ahead = self._columns.batches(self._at)
        for first, batch in self._ahead:
            self._at = first + batch.num_rows
            self._keep(first, batch)
            if row < self._at:
                return batch.slice(row - first, 1)
        raise DataError(f"{self._columns.path} ends before row {row}")

    def _keep(self, first: int, batch: pa.RecordBatch) -> None:
        self._kept[first] = batch
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _CACHE_BYTES:
            self._kept.popitem(last=False)


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
    """Turns what stands as JSON text into its value: `datasets` stores columns of mixed types that way."""
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
    """The row, with a reference wherever an image stands, numbered in the order of its columns."""
    numbers = count()
    marked = with_references(value, lambda image: ImageRef(place=(row, next(numbers))), is_image)
    return RawRow(row, 0, b"", marked, error, hash_values(value))
