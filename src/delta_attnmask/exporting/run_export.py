"""A scored data set, or a selection of it, becomes files: in the input's own format or a trainer's. No torch here."""

import json
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, DataError, SettingsError
from delta_attnmask.exporting.conversion import ENDINGS, Converted, convert_rows
from delta_attnmask.exporting.files import copy_rows
from delta_attnmask.reading.formats import TARGETS, TargetName, choose_target
from delta_attnmask.reading.inputs import find_sources
from delta_attnmask.reading.jsonfile import JsonFile
from delta_attnmask.reading.llama_factory import add_entry
from delta_attnmask.reading.rows import FilePart, FileRows, Place, fingerprint_file
from delta_attnmask.reading.tars import TarFile
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import Order, is_noted, note_path, write_note
from delta_attnmask.selecting.run_selection import sources_of
from delta_attnmask.selection import Selection
from delta_attnmask.storage import claim_output, write_text_atomically

MIXTURE = "mixture.json"
_N_NAMED = 20  # refused rows that the note names


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


def inputs_of(run: RunFolder, place: Place = Place()) -> list[Path]:
    """The run's folder and the files of its data, where they are now: none of them may be replaced."""
    data = str(place.data or run.manifest.data)
    if not data or "://" in data:
        return [run.path]
    with suppress(DataError):  # it has moved
        return [run.path, *(source.path for source in find_sources(data)[1]), Path(data)]
    return [run.path]


def export_selection(
    selection: Selection,
    run: RunFolder,
    out: Path,
    *,
    place: Place = Place(),
    order: Order = "input",
    to: TargetName | None = None,
    force: bool = False,
) -> tuple[Path, Converted]:
    """Write the kept rows to `out`, and beside it OUT.selection.json, whose path is returned.

    to: the trainer's format; None for the input's own, unchanged. force: replace files that this tool didn't write.
    Raises ArtifactError if the input isn't the data that was scored, or a file can't be written; SettingsError where
    `out` must not be replaced.
    """
    claim_output(note := note_path(out), (".json",), inputs_of(run, place), force=force)
    dataset = open_scored(run, place, with_images=to is not None)
    rows = selection.indices if order == "score" else np.sort(selection.indices)
    done = export_rows(dataset, rows, out, to=to, scores=run.read_scores(["n_turns"]), force=force)
    selection = _without(selection, done, to, run)
    written = None if out.is_dir() else fingerprint_file(out)
    write_text_atomically(note, write_note(selection, run, order, written))
    return note, done


def export_rows(
    dataset: FileRows,
    rows: NDArray[np.int64],
    out: Path,
    *,
    to: TargetName | None,
    scores: pa.Table | None = None,
    force: bool = False,
) -> Converted:
    """Write rows, in the order given, to `out`; see `claim_output` for what it replaces.

    scores: the column `n_turns` of all rows of the data, which a trainer's format needs.
    """
    _claim(out, dataset, to, force)
    if to is None or scores is None:
        export_native(dataset, rows, out)
        return Converted(n_written=len(rows))
    n_turns = pc.take(scores["n_turns"], pa.array(rows))
    return convert_rows(dataset, rows, choose_target(to, pc.all(pc.equal(n_turns, 1)).as_py() is True), out)


def _without(selection: Selection, done: Converted, to: TargetName | None, run: RunFolder) -> Selection:
    """The selection as it was written: without the rows that were refused, which are named."""
    if to is None:
        return selection
    is_written = ~np.isin(selection.indices, np.array(list(done.refused), dtype=np.int64))
    named = {str(row): reason for row, reason in list(done.refused.items())[:_N_NAMED]}
    indices = selection.indices[is_written]
    details = {"to": to, "n_refused": len(done.refused), "refused": named, "sources": sources_of(run, indices)}
    return replace(selection, indices=indices, details=selection.details | details)


def _claim(out: Path, dataset: FileRows, to: TargetName | None, force: bool) -> None:
    """Refuse what must not be replaced, and a name that promises another kind of file than is written."""
    if to or is_one_file(dataset):
        part = dataset.parts[0]
        endings = (ENDINGS[TARGETS[to].file],) if to else (*part.container.endings, part.path.suffix.lower())
        if not to and out.suffix.lower() not in endings:
            raise SettingsError(
                f"{out}: the input is {part.container.kind} and its rows are written unchanged; expected a name that "
                f"ends in {part.container.endings[0]}, or another format with --to"
            )
        claim_output(out, endings, dataset.inputs, force=force, is_ours=is_noted(out))
    elif out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file; expected a folder, since the data are several files")


def is_one_file(dataset: FileRows) -> bool:
    """Whether the data is a single file, and is written as one; else a folder is written."""
    return len(dataset.parts) == 1 and dataset.path == dataset.parts[0].path


def export_native(dataset: FileRows, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows, in the order given within each file, unchanged.

    A file becomes a file. A folder, several files or a mixture become a folder with files of the same names, and with
    what `datasets` needs to load it from disk, or a mixture file of what was kept. A file that an entry of
    `dataset_info.json` describes gets one beside it under its new name.
    """
    if is_one_file(dataset):
        _copy_part(dataset.parts[0], rows, out)
        return
    if out.exists() and any(out.iterdir()):
        raise SettingsError(f"{out} is a folder that isn't empty; choose another")
    home = Path(os.path.commonpath([part.path.parent for part in dataset.parts]))
    written = []
    for number, part in enumerate(dataset.parts):
        first, stop = dataset.starts[number : number + 2]
        mine = rows[(rows >= first) & (rows < stop)] - first
        if len(mine) or not isinstance(part.container, JsonFile | TarFile):  # an empty JSON list is no data set
            _copy_part(part, mine, out / part.path.relative_to(home))
            written.append((part, part.path.relative_to(home)))
    if (home / "state.json").is_file() and dataset.path == home:
        _write_state(home, out)
    if any(part.name or part.weight != 1 or part.images_root != dataset.images_root for part, _ in written):
        entries = [_describe_part(part, path) for part, path in written]
        write_text_atomically(out / MIXTURE, json.dumps({"sources": entries}, indent=1, ensure_ascii=False) + "\n")


def _copy_part(part: FilePart, rows: NDArray[np.int64], out: Path) -> None:
    copy_rows(part.container, rows, out)
    name, _, entry = part.format.spec.partition(":")
    if name == "llama-factory":
        add_entry(out, json.loads(entry))


def _describe_part(part: FilePart, path: Path) -> dict[str, Any]:
    """A part as an entry of a mixture file."""
    entry: dict[str, Any] = {"data": str(path), "format": part.format.spec, "weight": part.weight}
    named = {"name": part.name} if part.name else {}
    return named | entry | ({"images": str(part.images_root)} if part.images_root else {})


def _write_state(home: Path, out: Path) -> None:
    """What `datasets.load_from_disk` reads first. It caches by the fingerprint, so that must be a new one."""
    state = json.loads((home / "state.json").read_text(encoding="utf-8"))
    write_text_atomically(
        out / "state.json", json.dumps(state | {"_fingerprint": secrets.token_hex(8)}, indent=2) + "\n"
    )
    info = home / "dataset_info.json"
    if info.is_file():
        write_text_atomically(out / info.name, info.read_text(encoding="utf-8"))
