"""Files of exported rows: the input's own rows, or new JSON, parquet and tar files. No torch here.

Kept rows of a file are written unchanged into another of the same kind: JSON and tars as stretches of the input's
bytes, tables under the same schema with its metadata.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.reading.columns import ArrowFile, Columns
from delta_attnmask.reading.containers import FileContainer, open_input
from delta_attnmask.reading.formats import FileKind
from delta_attnmask.reading.jsonfile import JsonFile
from delta_attnmask.reading.tars import TarFile
from delta_attnmask.storage import write_atomically

IMAGES = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
MESSAGES = pa.list_(
    pa.struct({"role": pa.string(), "content": pa.list_(pa.struct({"type": pa.string(), "text": pa.string()}))})
)
# what `datasets` reads; the images' type as a list is what every version of it knows
IMAGES_METADATA = {"huggingface": json.dumps({"info": {"features": {"images": [{"_type": "Image"}]}}})}
_AROUND = {  # what comes before, between and after the rows
    "list": (b"[\n", b",\n", b"\n]\n"),
    "annotations": (b'{"annotations": [\n', b",\n", b"\n]}\n"),
    "lines": (b"", b"\n", b"\n"),
    "tar": (b"", b"", b"\0" * 1024),
}
_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II": "tif"}
_CHUNK_BYTES = 1 << 20
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1000
_ROWS_AT_ONCE = 16

ConvertedRow = tuple[int, dict[str, Any], list[bytes]]  # its number, fields, and the images inside the file


def copy_rows(container: FileContainer, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows of one file, in the order given, into another of the same kind.

    Of tables, memory holds one row group, or all kept rows where they aren't in the order of the input.
    """
    if not isinstance(container, Columns):
        _copy_bytes(container, rows, out)
        return
    ordered = np.sort(rows)
    kept = _pick(container, ordered)
    if not np.array_equal(rows, ordered):
        kept = iter(pa.Table.from_batches(kept, container.schema).take(np.searchsorted(ordered, rows)).to_batches())
    write_table(out, container.schema, kept, container)


def _copy_bytes(container: JsonFile | TarFile, rows: NDArray[np.int64], out: Path) -> None:
    before, between, after = _AROUND[container.layout if isinstance(container, JsonFile) else "tar"]
    with open_input(container.path) as source, write_atomically(out) as file:
        file.write(before)
        for n, (start, stop) in enumerate(container.spans[rows].tolist()):
            file.write(between if n else b"")
            source.seek(start)
            for at in range(start, stop, _CHUNK_BYTES):
                file.write(source.read(min(_CHUNK_BYTES, stop - at)))
        file.write(after)


def _pick(container: Columns, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The given rows, which are in ascending order, as batches."""
    for first, batch in container.batches(0, int(rows.max(initial=-1)) + 1):
        low, high = np.searchsorted(rows, [first, first + batch.num_rows])
        if low < high:
            yield batch.take(pa.array(rows[low:high] - first))


def write_table(out: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], like: Columns | None = None) -> None:
    """Write batches as parquet, or as an arrow file or stream if `like` is one, in groups that are worth reading."""
    with write_atomically(out) as file:
        if isinstance(like, ArrowFile):
            writer = (pa.ipc.new_stream if like.is_stream else pa.ipc.new_file)(file, schema)
        else:
            writer = pq.ParquetWriter(file, schema, compression="zstd")
        with writer:
            for table in _gather(batches, schema):
                writer.write_table(table)


def _gather(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(one.nbytes for one in group) >= _GROUP_BYTES or sum(one.num_rows for one in group) >= _GROUP_ROWS:
            yield pa.Table.from_batches(group, schema).combine_chunks()
            group = []
    if group:
        yield pa.Table.from_batches(group, schema).combine_chunks()


def to_batches(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as small batches of a table."""
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield pa.RecordBatch.from_pylist(some, schema)


def write_rows(kind: FileKind, out: Path, rows: Iterator[ConvertedRow], columns: tuple[str, ...]) -> None:
    """Write a file of converted rows. columns: the names of those that hold messages, for parquet."""
    if kind == "parquet":
        fields = {"id": pa.string(), "source": pa.string(), "images": IMAGES, **dict.fromkeys(columns, MESSAGES)}
        schema = pa.schema(fields, IMAGES_METADATA)
        filled = (fields | {"images": [{"bytes": data, "path": None} for data in images]} for _, fields, images in rows)
        write_table(out, schema, to_batches(filled, schema))
    elif kind == "tar":
        with write_atomically(out) as file, tarfile.open(fileobj=file, mode="w|") as tar:
            for row in rows:
                _add_sample(tar, *row)
    else:
        before, between, after = _AROUND[kind]
        with write_atomically(out) as file:
            file.write(before)
            for n, (_, fields, _) in enumerate(rows):
                file.write((between if n else b"") + json.dumps(fields, ensure_ascii=False).encode())
            file.write(after)


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
