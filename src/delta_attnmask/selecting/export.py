"""The kept rows in the input's own format, byte for byte the same objects, and a note of what was kept and why."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.artifacts import RunFolder, write_atomically, write_text_atomically
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reading.dataset import fingerprint_file
from delta_attnmask.reading.rows import find_layout, iter_rows, open_input
from delta_attnmask.selecting.note import Order, note_path, write_note
from delta_attnmask.selection import Selection


def export_selection(
    selection: Selection,
    run: RunFolder,
    scores: pa.Table,
    out: Path,
    *,
    data: Path | None = None,
    order: Order = "input",
) -> Path:
    """Write the kept rows to `out`, and beside it OUT.selection.json, whose path is returned.

    data: the input file, if it is no longer where it was scored. Memory: 24 bytes a kept row and one row.
    Raises ArtifactError if the input isn't the file that was scored, or a file can't be written.
    """
    data = data or Path(run.manifest.data)
    _refuse_overwriting(out, data)
    found, expected = fingerprint_file(data), run.manifest.input
    if found != expected:
        raise ArtifactError(
            f"{data} is not the file that was scored: {found.n_bytes} bytes with SHA-256 {found.sha256[:12]}, expected "
            f"{expected.n_bytes} with {expected.sha256[:12]}; score it again, or name the right file with --data"
        )
    spans = _find_spans(data, np.sort(selection.rows))
    if order == "score":
        spans = spans[np.argsort(np.argsort(selection.rows))]
    _write_rows(data, spans, out)
    note = note_path(out)
    write_text_atomically(note, write_note(selection, run, scores, order))
    return note


def _refuse_overwriting(out: Path, data: Path) -> None:
    if out.is_dir():
        raise SettingsError(f"out={out}: is a directory, expected a file to write")
    if out.exists() and data.exists() and out.samefile(data):
        raise SettingsError(f"out={out}: is the input itself; choose another file")


def _find_spans(data: Path, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """First byte and length of the given rows, which are in ascending order. [n_kept, 2]"""
    spans = np.empty((len(rows), 2), dtype=np.int64)
    n_found = 0
    for row in iter_rows(data):
        if n_found == len(rows):
            break
        if row.row == rows[n_found]:
            spans[n_found] = row.start, len(row.raw)
            n_found += 1
    if n_found < len(rows):
        raise ArtifactError(f"{data} has no row {rows[n_found]}")
    return spans


def _write_rows(data: Path, spans: NDArray[np.int64], out: Path) -> None:
    before, between, after = (b"[\n", b",\n", b"\n]\n") if find_layout(data) == "list" else (b"", b"\n", b"\n")
    with open_input(data) as source, write_atomically(out) as file:
        file.write(before)
        for n, raw in enumerate(_read_spans(source, spans)):
            file.write(between + raw if n else raw)
        file.write(after)


def _read_spans(source: BinaryIO, spans: NDArray[np.int64]) -> Iterator[bytes]:
    for start, length in spans.tolist():
        source.seek(start)
        yield source.read(length)
