"""Files of exported rows: the input's own bytes and row groups, or new JSON, parquet and tar files. No torch here.

Kept rows of a file are written unchanged into another of the same kind: JSON and tars as stretches of the input's
bytes, tables under the same schema with its metadata. Converted rows are given to a function one after the other.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reading.columns import ArrowFile, Columns, ParquetFile
from delta_attnmask.reading.containers import Container, open_input
from delta_attnmask.reading.formats import FileKind
from delta_attnmask.reading.jsonfile import JsonFile, Layout
from delta_attnmask.reading.tars import TarFile
from delta_attnmask.storage import write_atomically

DATA_ENDINGS = frozenset(
    {".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".tar", ".csv", ".tsv", ".txt", ".xlsx"}
)
HF_KEY = b"huggingface"
IMAGES = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
MESSAGES = pa.list_(
    pa.struct({"role": pa.string(), "content": pa.list_(pa.struct({"type": pa.string(), "text": pa.string()}))})
)
_AROUND: dict[Layout, tuple[bytes, bytes, bytes]] = {
    "list": (b"[\n", b",\n", b"\n]\n"),
    "annotations": (b'{"annotations": [\n', b",\n", b"\n]}\n"),
    "lines": (b"", b"\n", b"\n"),
}
_AROUND_TAR = (b"", b"", b"\0" * 1024)
_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II": "tif"}
_DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}
_CHUNK_BYTES = 1 << 20
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1000
_CONVERTED_AT_ONCE = 100  # rows

ByteSpan = tuple[int, int]  # the first byte of a row, and how many it has
WriteRow = Callable[[int, dict[str, Any], list[bytes]], None]  # row, fields, and the images that stand in the file


class BatchWriter(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...


def copy_rows(container: Container, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows of one file, in the order given, into another of the same kind."""
    if isinstance(container, JsonFile):
        _copy_bytes(container.path, _find_json_spans(container, rows), out, *_AROUND[container.layout])
    elif isinstance(container, TarFile):
        spans = [container.spans[row] for row in rows.tolist()]
        _copy_bytes(container.path, [(span.start, span.stop - span.start) for span in spans], out, *_AROUND_TAR)
    elif isinstance(container, Columns):
        _copy_columns(container, rows, out)
    else:
        raise TypeError(f"no way to write rows of {container.kind}")


def _find_json_spans(container: JsonFile, rows: NDArray[np.int64]) -> list[ByteSpan]:
    """Where rows stand, in their order. Memory: two numbers a kept row, and one row."""
    wanted, found = np.sort(rows), np.empty((len(rows), 2), dtype=np.int64)
    n_found = 0
    for row in container.rows():
        if n_found == len(rows):
            break
        if row.row == wanted[n_found]:
            found[n_found] = row.start, len(row.raw)
            n_found += 1
    if n_found < len(rows):
        raise ArtifactError(f"{container.path} has no row {wanted[n_found]}")
    return [(start, n_bytes) for start, n_bytes in found[_ranks(rows)].tolist()]


def _ranks(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row stands among the sorted ones."""
    return np.argsort(np.argsort(rows))


def _copy_bytes(path: Path, spans: Iterable[ByteSpan], out: Path, before: bytes, between: bytes, after: bytes) -> None:
    with open_input(path) as source, write_atomically(out) as file:
        file.write(before)
        for n, (start, n_bytes) in enumerate(spans):
            file.write(between if n else b"")
            source.seek(start)
            while n_bytes > 0 and (chunk := source.read(min(n_bytes, _CHUNK_BYTES))):
                n_bytes -= len(chunk)
                file.write(chunk)
        file.write(after)


def _copy_columns(container: Columns, rows: NDArray[np.int64], out: Path) -> None:
    """In the order of the input memory holds one row group; in another order it holds all kept rows."""
    kept = _pick(container, np.sort(rows))
    if not np.array_equal(rows, np.sort(rows)):
        kept = iter(pa.Table.from_batches(kept, container.schema).take(_ranks(rows)).to_batches())
    options: dict[str, Any] = {}
    if isinstance(container, ParquetFile):
        options = {"compression": container.compression, "use_compliant_nested_type": not container.names_items}
    kind = "parquet" if options else "file" if isinstance(container, ArrowFile) else "stream"
    with open_table(out, container.schema, kind, **options) as writer:
        write_batches(writer, kept, container.schema)


def _pick(container: Columns, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The given rows, which are in ascending order, as batches."""
    for first, batch in container.batches():
        low, high = np.searchsorted(rows, [first, first + batch.num_rows])
        if low < high:
            yield batch.take(pa.array(rows[low:high] - first))
        if high == len(rows):
            return


@contextmanager
def open_table(out: Path, schema: pa.Schema, kind: str, **options: Any) -> Iterator[BatchWriter]:
    """A writer of parquet, or of an arrow file or stream."""
    with write_atomically(out) as file:
        if kind == "parquet":
            with pq.ParquetWriter(file, schema, **{"compression": "zstd", **options}) as writer:
                yield writer
        else:
            with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(file, schema) as writer:
                yield writer


def write_batches(writer: BatchWriter, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write small batches as groups that are worth reading."""
    group: list[pa.RecordBatch] = []

    def flush() -> None:
        if group:
            writer.write_batch(pa.Table.from_batches(group, schema).combine_chunks().to_batches()[0])
            group.clear()

    for batch in batches:
        group.append(batch)
        if sum(one.nbytes for one in group) >= _GROUP_BYTES or sum(one.num_rows for one in group) >= _GROUP_ROWS:
            flush()
    flush()


@contextmanager
def open_writer(kind: FileKind, out: Path, columns: Sequence[str]) -> Iterator[WriteRow]:
    """A file of converted rows. columns: the names of those that hold messages, for parquet."""
    if kind == "parquet":
        with _open_parquet(out, columns) as write:
            yield write
    elif kind == "tar":
        with write_atomically(out) as file, tarfile.open(fileobj=file, mode="w|") as tar:
            yield lambda row, fields, images: _add_sample(tar, row, fields, images)
    else:
        with _open_json(out, *_AROUND[kind]) as write:
            yield write


@contextmanager
def _open_json(out: Path, before: bytes, between: bytes, after: bytes) -> Iterator[WriteRow]:
    with write_atomically(out) as file:
        following = before

        def write(row: int, fields: dict[str, Any], images: list[bytes]) -> None:
            nonlocal following
            file.write(following + json.dumps(fields, ensure_ascii=False).encode())
            following = between

        yield write
        file.write(after if following == between else before + after)


@contextmanager
def _open_parquet(out: Path, columns: Sequence[str]) -> Iterator[WriteRow]:
    messages = dict.fromkeys(columns, MESSAGES)
    schema = describe_schema(pa.schema({"id": pa.string(), "source": pa.string(), "images": IMAGES} | messages))
    rows: list[dict[str, Any]] = []
    n_bytes = 0
    with open_table(out, schema, "parquet") as writer:

        def write(row: int, fields: dict[str, Any], images: list[bytes]) -> None:
            nonlocal n_bytes
            rows.append(fields | {"images": [{"bytes": data, "path": None} for data in images]})
            n_bytes += sum(map(len, images))
            if len(rows) >= _CONVERTED_AT_ONCE or n_bytes >= _GROUP_BYTES:
                flush()

        def flush() -> None:
            nonlocal n_bytes
            write_batches(writer, [pa.RecordBatch.from_pylist(rows, schema)] if rows else [], schema)
            rows.clear()
            n_bytes = 0

        yield write
        flush()


def _add_sample(tar: tarfile.TarFile, row: int, fields: dict[str, Any], images: list[bytes]) -> None:
    text = json.dumps(fields, ensure_ascii=False).encode()
    for name, data in [*zip(name_members(row, images), images, strict=True), (f"{row:09d}.json", text)]:
        member = tarfile.TarInfo(name)  # owner, time and rights are left at what is the same everywhere
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def name_members(row: int, images: list[bytes]) -> list[str]:
    """The names of a sample's images in a tar: 000000001.jpg, or 000000001.0.jpg and so on if there are several."""
    many = len(images) > 1
    return [f"{row:09d}{f'.{n}' if many else ''}.{find_ending(data)}" for n, data in enumerate(images)]


def find_ending(data: bytes) -> str:
    """The file ending that an image's first bytes ask for."""
    return next((ending for start, ending in _ENDINGS.items() if data.startswith(start)), "tif")


def describe_schema(schema: pa.Schema, known: dict[str, Any] | None = None) -> pa.Schema:
    """The schema with the metadata that `datasets` reads; known: features of columns that it knew before."""
    features = {field.name: (known or {}).get(field.name) or _describe(field.type) for field in schema}
    info = json.dumps({"info": {"features": features}}).encode()
    return schema.with_metadata((schema.metadata or {}) | {HF_KEY: info})


def read_features(schema: pa.Schema) -> dict[str, Any]:
    """What the metadata say of the columns; nothing where they say nothing that can be read."""
    try:
        found = json.loads((schema.metadata or {}).get(HF_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _describe(type: pa.DataType) -> Any:
    """A column's feature; a list is written as a list, which every version of `datasets` reads."""
    if type == IMAGES:
        return [{"_type": "Image"}]
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return [_describe(type.value_type)]
    if pa.types.is_struct(type):
        return {field.name: _describe(field.type) for field in type}
    return {"dtype": _DTYPES.get(str(type), str(type)), "_type": "Value"}
