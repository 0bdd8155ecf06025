"""A selection of a scored data set becomes a file: in the input's own format or a trainer's. No torch here."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.exporting.convert import Converted, convert_rows
from delta_attnmask.exporting.native import export_native, is_one_file
from delta_attnmask.exporting.targets import TargetName, choose_target
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import Order, note_path, write_note
from delta_attnmask.selecting.run_selection import sources_of
from delta_attnmask.selection import Selection
from delta_attnmask.storage import write_text_atomically

_N_TOLD = 20  # refused rows that the note names


@dataclass(frozen=True)
class Place:
    """Where the data is now, if it was moved, and what its images may be."""

    data: str | Path | None = None
    images: str | Path | None = None
    image_limits: ImageLimits = ImageLimits()


def open_scored(run: RunFolder, place: Place = Place(), *, with_images: bool = True) -> FileRows:
    """The data that a run scored, read as then; ArtifactError if it is no longer the same.

    with_images: its image folder is needed, and must be there.
    """
    manifest = run.manifest
    data = place.data or manifest.require_data()
    dataset = FileRows(
        data,
        (place.images or manifest.images or None) if with_images else None,
        format=manifest.format,
        limit=manifest.n_rows,
        image_limits=place.image_limits,
    )
    found, expected = dataset.fingerprint, manifest.input
    if found != expected:
        raise ArtifactError(
            f"{data} is not the file that was scored: {found.n_bytes} bytes with SHA-256 {found.sha256[:12]}, expected "
            f"{expected.n_bytes} with {expected.sha256[:12]}; score it again, or name the right file with --data"
        )
    return dataset


def export_selection(
    selection: Selection,
    run: RunFolder,
    out: Path,
    *,
    place: Place = Place(),
    order: Order = "input",
    to: TargetName | None = None,
) -> tuple[Path, Converted]:
    """Write the kept rows to `out`, and beside it OUT.selection.json, whose path is returned.

    to: the trainer's format; None for the input's own, unchanged.
    Raises ArtifactError if the input isn't the data that was scored, or a file can't be written.
    """
    dataset = open_scored(run, place, with_images=to is not None)
    rows = selection.indices if order == "score" else np.sort(selection.indices)
    done = export_rows(dataset, rows, out, to=to, scores=run.read_scores(["n_turns"]))
    selection = _without(selection, done, to, run)
    note = note_path(out)
    write_text_atomically(note, write_note(selection, run, order))
    return note, done


def export_rows(
    dataset: FileRows, rows: NDArray[np.int64], out: Path, *, to: TargetName | None, scores: pa.Table
) -> Converted:
    """Write rows, in the order given, to `out`. scores: the column `n_turns` of all rows of the data."""
    _refuse_overwriting(out, dataset, is_file=to is not None or is_one_file(dataset))
    if to is None:
        export_native(dataset, rows, out)
        return Converted(n_written=len(rows))
    n_turns = pc.take(scores["n_turns"], pa.array(rows))
    return convert_rows(dataset, rows, choose_target(to, pc.all(pc.equal(n_turns, 1)).as_py() is True), out)


def _without(selection: Selection, done: Converted, to: TargetName | None, run: RunFolder) -> Selection:
    """The selection as it was written: without the rows that were refused, which are told."""
    if to is None:
        return selection
    is_written = ~np.isin(selection.indices, np.array(list(done.refused), dtype=np.int64))
    told = {str(row): reason for row, reason in list(done.refused.items())[:_N_TOLD]}
    indices = selection.indices[is_written]
    details = {"to": to, "n_refused": len(done.refused), "refused": told, "sources": sources_of(run, indices)}
    return replace(selection, indices=indices, details=selection.details | details)


def _refuse_overwriting(out: Path, dataset: FileRows, *, is_file: bool) -> None:
    if is_file and out.is_dir():
        raise SettingsError(f"out={out}: is a directory, expected a file to write")
    if not is_file and out.exists() and not out.is_dir():
        raise SettingsError(f"out={out}: is a file, expected a folder: the data are several files")
    if out.exists() and any(out.samefile(path) for path in _own_paths(dataset)):
        raise SettingsError(f"out={out}: is the input itself; choose another file")


def _own_paths(dataset: FileRows) -> list[Path]:
    paths = [dataset.path, *(part.path for part in dataset.parts)]
    return [path for path in paths if path.exists()]
