"""Files of converted rows: JSON, JSONL, parquet, and tars; each a context that gives a function to write a row."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from delta_attnmask.exporting.features import IMAGES, MESSAGES, describe_schema
from delta_attnmask.exporting.places import find_ending
from delta_attnmask.exporting.tables import open_table, write_batches
from delta_attnmask.exporting.targets import Layout
from delta_attnmask.storage import write_atomically

WriteRow = Callable[[int, dict[str, Any], list[bytes]], None]  # row, fields, and the images that stand in the file

_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 100


@contextmanager
def open_writer(layout: Layout, out: Path, columns: tuple[str, ...]) -> Iterator[WriteRow]:
    """columns: the names of those that hold messages, for parquet."""
    if layout == "parquet":
        with _open_parquet(out, columns) as write:
            yield write
    elif layout == "tar":
        with _open_tar(out) as write:
            yield write
    else:
        with _open_json(out, is_list=layout == "list") as write:
            yield write


@contextmanager
def _open_json(out: Path, *, is_list: bool) -> Iterator[WriteRow]:
    between = ",\n" if is_list else "\n"
    with write_atomically(out) as file:
        n_written = 0

        def write(row: int, fields: dict[str, Any], images: list[bytes]) -> None:
            nonlocal n_written
            text = json.dumps(fields, ensure_ascii=False)
            file.write(f"{between if n_written else ''}{text}".encode())
            n_written += 1

        file.write(b"[\n" if is_list else b"")
        yield write
        file.write(b"\n]\n" if is_list else b"\n" if n_written else b"")


@contextmanager
def _open_parquet(out: Path, columns: tuple[str, ...]) -> Iterator[WriteRow]:
    messages = dict.fromkeys(columns, MESSAGES)
    schema = describe_schema(pa.schema({"id": pa.string(), "source": pa.string(), "images": IMAGES} | messages))
    rows: list[dict[str, Any]] = []
    n_bytes = 0
    with open_table(out, schema) as writer:

        def write(row: int, fields: dict[str, Any], images: list[bytes]) -> None:
            nonlocal n_bytes
            rows.append(fields | {"images": [{"bytes": data, "path": None} for data in images]})
            n_bytes += sum(map(len, images))
            if len(rows) >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
                flush()

        def flush() -> None:
            nonlocal n_bytes
            write_batches(writer, [pa.RecordBatch.from_pylist(rows, schema)] if rows else [], schema)
            rows.clear()
            n_bytes = 0

        yield write
        flush()


@contextmanager
def _open_tar(out: Path) -> Iterator[WriteRow]:
    with write_atomically(out) as file, tarfile.open(fileobj=file, mode="w|") as tar:

        def write(row: int, fields: dict[str, Any], images: list[bytes]) -> None:
            for name, data in zip(name_members(row, images), images, strict=True):
                add(name, data)
            add(f"{row:09d}.json", json.dumps(fields, ensure_ascii=False).encode())

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)  # owner, time and rights are left at what is the same everywhere
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        yield write


def name_members(row: int, images: list[bytes]) -> list[str]:
    """The names of a sample's images in a tar: 000000001.jpg, or 000000001.0.jpg and so on if there are several."""
    many = len(images) > 1
    return [f"{row:09d}{f'.{n}' if many else ''}.{find_ending(data)}" for n, data in enumerate(images)]
