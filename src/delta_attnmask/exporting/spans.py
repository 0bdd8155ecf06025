"""Kept rows as stretches of the input's own bytes: JSON, JSONL and tars. No torch here."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reading.containers import open_input
from delta_attnmask.reading.jsonfile import JsonFile, Layout
from delta_attnmask.reading.tars import TarFile
from delta_attnmask.storage import write_atomically

_AROUND: dict[Layout, tuple[bytes, bytes, bytes]] = {
    "list": (b"[\n", b",\n", b"\n]\n"),
    "annotations": (b'{"annotations": [\n', b",\n", b"\n]}\n"),
    "lines": (b"", b"\n", b"\n"),
}
_TAR_END = b"\0" * 1024
_CHUNK_BYTES = 1 << 20

Spans = NDArray[np.int64]  # first byte and length of each row. [n_kept, 2]


def copy_json(container: JsonFile, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows, in the order given, as the same objects byte for byte in a file of the same layout."""
    before, between, after = _AROUND[container.layout]
    spans = _in_order(_find_json_spans(container, np.sort(rows)), rows)
    with open_input(container.path) as source, write_atomically(out) as file:
        file.write(before)
        for n, span in enumerate(spans.tolist()):
            file.write(between if n else b"")
            for chunk in _read_span(source, *span):
                file.write(chunk)
        file.write(after)


def copy_tar(container: TarFile, rows: NDArray[np.int64], out: Path) -> None:
    """Write samples, in the order given, with the same headers and the same bytes in every file."""
    with open_input(container.path) as source, write_atomically(out) as file:
        for row in rows.tolist():
            span = container.spans[row]
            for chunk in _read_span(source, span.start, span.stop - span.start):
                file.write(chunk)
        file.write(_TAR_END)


def _find_json_spans(container: JsonFile, rows: NDArray[np.int64]) -> Spans:
    """Of rows in ascending order. Memory: 16 bytes a kept row, and one row."""
    spans = np.empty((len(rows), 2), dtype=np.int64)
    n_found = 0
    for row in container.rows():
        if n_found == len(rows):
            break
        if row.row == rows[n_found]:
            spans[n_found] = row.start, len(row.raw)
            n_found += 1
    if n_found < len(rows):
        raise ArtifactError(f"{container.path} has no row {rows[n_found]}")
    return spans


def _in_order(spans: Spans, rows: NDArray[np.int64]) -> Spans:
    return spans[np.argsort(np.argsort(rows))]


def _read_span(source: BinaryIO, start: int, n_bytes: int) -> Iterator[bytes]:
    source.seek(start)
    while n_bytes > 0 and (chunk := source.read(min(n_bytes, _CHUNK_BYTES))):
        n_bytes -= len(chunk)
        yield chunk
